"""The decoder and its beam search here against fairseq's own, with the same weights: `make test-fairseq`."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from syncdiff.pipeline.avhubert.beam_search import SearchConfig, beam_search
from syncdiff.pipeline.avhubert.checkpoint import Checkpoint
from syncdiff.pipeline.avhubert.decoder import EOS
from syncdiff.pipeline.avhubert.load import build_decoder

pytestmark = pytest.mark.fairseq

ROOT = Path(__file__).resolve().parents[2]
ORACLE = Path(__file__).with_name("decoder_oracle.py")
TOLERANCE = 2e-5
FORCED = np.array([EOS, 7, 7, 3, 20, 43, 0, 11])
SYMBOLS = [f"piece{index}" for index in range(40)]
SMALL = {
    "decoder_layers": 2,
    "decoder_embed_dim": 32,
    "decoder_ffn_embed_dim": 48,
    "decoder_attention_heads": 4,
    "decoder_normalize_before": True,
    "decoder_learned_pos": False,
    "share_decoder_input_output_embed": True,
    "no_scale_embedding": True,
    "max_target_positions": 64,
    "activation_fn": "relu",
}
BASE = {"decoder_embed_dim": 768, "decoder_ffn_embed_dim": 3072, "decoder_layers": 1}
DECODERS = {
    "pre-norm": SMALL,
    "post-norm": {**SMALL, "decoder_normalize_before": False},
    "own output embedding": {**SMALL, "share_decoder_input_output_embed": False},
    "learned positions": {**SMALL, "decoder_learned_pos": True},
    "scaled embedding": {**SMALL, "no_scale_embedding": False},
    "gelu": {**SMALL, "activation_fn": "gelu"},
    "a layer of Base": {**SMALL, **BASE},
}
SEARCHES = [
    SearchConfig(),  # a beam of 50 for 44 pieces
    SearchConfig(beam=5, length_penalty=0.0),
    SearchConfig(beam=4, length_penalty=2.0, pieces_per_frame=0.5),
    SearchConfig(beam=1, min_pieces=3),
]


CASES = {(name, SEARCHES[0]): None for name in DECODERS} | {("pre-norm", search): None for search in SEARCHES}


def random_state(config: dict[str, Any], memory_width: int) -> dict[str, torch.Tensor]:
    """A decoder's tensors as AV-HuBERT's checkpoints name them, without `decoder.`."""
    generator = torch.Generator().manual_seed(0)

    def fill(name: str, *shape: int) -> None:
        scale = 0.1 if len(shape) == 1 else 1.5 * shape[1] ** -0.5
        offset = 1.0 if "norm.weight" in name else 0.0
        state[name] = offset + scale * torch.randn(shape, generator=generator)

    state: dict[str, torch.Tensor] = {}
    width, wide = config["decoder_embed_dim"], config["decoder_ffn_embed_dim"]
    fill("embed_tokens.weight", 4 + len(SYMBOLS), width)
    if not config["share_decoder_input_output_embed"]:
        fill("embed_out", 4 + len(SYMBOLS), width)
    if config["decoder_learned_pos"]:
        fill("embed_positions.weight", config["max_target_positions"] + 2, width)
    for layer in (f"layers.{index}" for index in range(config["decoder_layers"])):
        linear = {f"self_attn.{which}_proj": (width, width) for which in ("q", "k", "v", "out")}
        linear |= {f"encoder_attn.{which}_proj": (width, width) for which in ("q", "out")}
        linear |= {f"encoder_attn.{which}_proj": (width, memory_width) for which in "kv"}
        linear |= {"fc1": (wide, width), "fc2": (width, wide)}
        for name, shape in linear.items():
            fill(f"{layer}.{name}.weight", *shape)
            fill(f"{layer}.{name}.bias", shape[0])
        for name in ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"):
            fill(f"{layer}.{name}.weight", width)
            fill(f"{layer}.{name}.bias", width)
    if config["decoder_normalize_before"]:
        fill("layer_norm.weight", width)
        fill("layer_norm.bias", width)
    return state


@dataclass(frozen=True)
class Case:
    """A decoder's tensors, what it is given, and what is asked of fairseq."""

    state: dict[str, torch.Tensor]
    memory: torch.Tensor
    about: dict[str, Any]


def make_case(name: str, search: SearchConfig) -> Case:
    arguments = {
        "beam_size": search.beam,
        "len_penalty": search.length_penalty,
        "max_len_a": search.pieces_per_frame,
        "max_len_b": 0,
        "min_len": search.min_pieces,
    }
    about = {"decoder": DECODERS[name], "memory_width": 24, "symbols": SYMBOLS, "search": arguments}
    memory = torch.randn(25, 24, generator=torch.Generator().manual_seed(1))
    return Case(random_state(DECODERS[name], 24), memory, about)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, SearchConfig], dict[str, Any]]:
    """fairseq's, of one process for all, since it takes long to begin."""
    python = Path(os.environ.get("SYNCDIFF_FAIRSEQ_PYTHON", ROOT / ".venv-fairseq" / "bin" / "python"))
    if not python.is_file():
        pytest.skip(f"no {python}; `make test-fairseq` makes it, or set SYNCDIFF_FAIRSEQ_PYTHON")
    folder = tmp_path_factory.mktemp("decoder")
    paths = []
    for number, key in enumerate(CASES):
        case = make_case(*key)
        arrays = {name: tensor.numpy() for name, tensor in case.state.items()}
        arrays |= {"memory": case.memory.numpy(), "forced": FORCED}
        np.savez(folder / f"{number}-in.npz", config=json.dumps(case.about), **arrays)
        paths += [folder / f"{number}-in.npz", folder / f"{number}-out.npz"]
    done = subprocess.run([python, ORACLE, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = {}
    for key, path in zip(CASES, paths[1::2], strict=True):
        with np.load(path) as arrays:
            results[key] = dict(arrays)
    return results


@pytest.mark.parametrize("key", CASES, ids=str)
def test_log_probabilities_and_hypotheses_equal_fairseq(
    answers: dict[tuple[str, SearchConfig], dict[str, Any]], key: tuple[str, SearchConfig]
) -> None:
    case, wanted = make_case(*key), answers[key]
    tensors = {f"decoder.{name}": tensor for name, tensor in case.state.items()}
    config = {"model": case.about["decoder"]}
    decoder = build_decoder(Checkpoint(tensors, config, "torch-zip", "random", "", 0))
    past = decoder.begin(case.memory)
    log_probs = [decoder.step(torch.tensor([piece]), past)[0].numpy() for piece in FORCED]
    assert np.abs(np.stack(log_probs) - wanted["log_probs"]).max() <= TOLERANCE
    found = beam_search(decoder, case.memory, key[1])
    theirs = [tuple(row[row >= 0][:-1].tolist()) for row in wanted["pieces"]]  # the last is the end
    assert [one.pieces for one in found] == theirs
    assert np.abs(np.array([one.score for one in found]) - wanted["scores"]).max() <= TOLERANCE
