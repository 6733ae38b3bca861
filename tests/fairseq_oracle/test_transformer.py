"""The transformer here against fairseq's own, with the same weights: `make test-fairseq`.

fairseq 0.12.2 neither installs with today's pip nor imports on Python 3.11 and later, so it runs in an
environment of its own (Python 3.10), as a second process that exchanges arrays with this one.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from syncdiff.pipeline.avhubert.encoder import AVHubertEncoder, EncoderConfig, Packing, prepare_for_inference
from syncdiff.pipeline.avhubert.load import transformer_tensors

pytestmark = pytest.mark.fairseq

ROOT = Path(__file__).resolve().parents[2]
ORACLE = Path(__file__).with_name("oracle.py")
TOLERANCE = 2e-5
LENGTHS = [75, 40, 1, 33]
NETWORKS = {
    "pre-norm": EncoderConfig(3, 64, 128, 4, layer_norm_first=True),
    "post-norm": EncoderConfig(3, 64, 128, 4, layer_norm_first=False),
    "two layers of Base": EncoderConfig(2, 768, 3072, 12, layer_norm_first=True),
    "a layer of Large": EncoderConfig(1, 1024, 4096, 16, layer_norm_first=True),
    "another kernel": EncoderConfig(2, 64, 96, 8, conv_pos=31, conv_pos_groups=4, layer_norm_first=True),
    "relu": EncoderConfig(2, 64, 96, 8, activation="relu"),
}


@pytest.fixture(scope="module")
def fairseq_python() -> Path:
    python = Path(os.environ.get("SYNCDIFF_FAIRSEQ_PYTHON", ROOT / ".venv-fairseq" / "bin" / "python"))
    if not python.is_file():
        pytest.skip(f"no {python}; `make test-fairseq` makes it, or set SYNCDIFF_FAIRSEQ_PYTHON")
    return python


def random_state(config: EncoderConfig) -> dict[str, torch.Tensor]:
    """An encoder's tensors under fairseq's names."""
    generator = torch.Generator().manual_seed(0)

    def fill(name: str, *shape: int) -> None:
        scale = 0.1 if len(shape) == 1 else float(np.prod(shape[1:])) ** -0.5
        offset = 1.0 if len(shape) == 1 and "norm.weight" in name else 0.0
        state[name] = offset + scale * torch.randn(shape, generator=generator)

    state: dict[str, torch.Tensor] = {}
    width = config.width
    fill("pos_conv.0.weight_v", width, width // config.conv_pos_groups, config.conv_pos)
    fill("pos_conv.0.bias", width)
    state["pos_conv.0.weight_g"] = 1 + 0.1 * torch.randn(1, 1, config.conv_pos, generator=generator)
    for layer in (f"layers.{index}" for index in range(config.layers)):
        linear = {f"self_attn.{which}_proj": (width, width) for which in ("q", "k", "v", "out")}
        linear |= {"fc1": (config.ffn_width, width), "fc2": (width, config.ffn_width)}
        for name, (outputs, inputs) in linear.items():
            fill(f"{layer}.{name}.weight", outputs, inputs)
            fill(f"{layer}.{name}.bias", outputs)
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            fill(f"{layer}.{name}.weight", width)
            fill(f"{layer}.{name}.bias", width)
    fill("layer_norm.weight", width)
    fill("layer_norm.bias", width)
    return state


def ask_fairseq(
    python: Path, folder: Path, config: EncoderConfig, given: dict[str, Any]
) -> dict[str, np.ndarray]:
    fields = {
        "encoder_layers": config.layers,
        "encoder_embed_dim": config.width,
        "encoder_ffn_embed_dim": config.ffn_width,
        "encoder_attention_heads": config.heads,
        "activation_fn": config.activation,
        "layer_norm_first": config.layer_norm_first,
        "conv_pos": config.conv_pos,
        "conv_pos_groups": config.conv_pos_groups,
    }
    np.savez(folder / "in.npz", config=json.dumps(fields), **given)
    command = [str(python), str(ORACLE), str(folder / "in.npz"), str(folder / "out.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as results:
        return dict(results)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_layers_equal_fairseq(fairseq_python: Path, tmp_path: Path, name: str) -> None:
    config = dataclasses.replace(NETWORKS[name], audio_dim=None)
    state = random_state(config)
    steps = [torch.randn(n, config.width, generator=torch.Generator().manual_seed(n)) for n in LENGTHS]
    x = torch.nn.utils.rnn.pad_sequence(steps, batch_first=True, padding_value=3.0)
    mask = torch.arange(x.shape[1]) >= torch.tensor(LENGTHS)[:, None]
    given = {n: t.numpy() for n, t in state.items()} | {"x": x.numpy(), "padding_mask": mask.numpy()}
    wanted = ask_fairseq(fairseq_python, tmp_path, config, given)

    encoder = AVHubertEncoder(config)
    own = transformer_tensors(config, {f"encoder.{n}": tensor for n, tensor in state.items()})
    missing, unexpected = encoder.load_state_dict(own, strict=False)
    assert not unexpected
    assert all(n.startswith(("fused_norm.", "fused_proj.")) for n in missing)
    encoder.eval().requires_grad_(False)
    prepared = copy.deepcopy(encoder)
    prepare_for_inference(prepared)
    packing = Packing(LENGTHS, torch.device("cpu"))
    layers: list[Any] = ["final", *range(1, config.layers + 1)]
    for layer in layers:
        reference = wanted["final" if layer == "final" else f"layer_{layer}"][~mask.numpy()]
        for network in (encoder, prepared):
            with torch.inference_mode():
                values = network.transform(torch.cat(steps), packing, layer)
            assert np.abs(values.numpy() - reference).max() <= TOLERANCE
