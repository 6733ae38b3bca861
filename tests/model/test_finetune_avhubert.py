"""AV-HuBERT inside the network: the right steps of the right layers, and only the top ones trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from syncdiff.model import checkpoint as ckpt
from syncdiff.model.config import AudioConfig, TrainConfig
from syncdiff.model.finetune_avhubert import TunedHubert, load_hubert
from syncdiff.model.generate import generate, load_model
from syncdiff.model.generate_split import row_job
from syncdiff.model.train import train
from syncdiff.pipeline.avhubert.encoder import EncoderConfig
from syncdiff.pipeline.avhubert.load import load_encoder
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.features.filterbanks import logfbank
from syncdiff.pipeline.store.read import open_dataset

SMALL = EncoderConfig(
    layers=3,
    width=16,
    ffn_width=32,
    heads=2,
    conv_pos=8,
    conv_pos_groups=4,
    layer_norm_first=True,
    audio_layer_norm=True,
)


def audio(path: Path | None = None, layers: int = 1) -> AudioConfig:
    return AudioConfig(finetune_layers=layers, checkpoint=str(path), window=5, context_s=0.2)


def random_hubert(layers: int = 1) -> TunedHubert:
    torch.manual_seed(0)
    tuned = TunedHubert(SMALL, audio(layers=layers)).eval()
    for parameter in tuned.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return tuned


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained AV-HuBERT, in a file as `syncdiff-prep weights` makes it."""
    from syncdiff.pipeline.avhubert.untrained import make_tiny_checkpoint

    path = tmp_path_factory.mktemp("hubert") / "tiny.safetensors"
    make_tiny_checkpoint(path)
    return path


def test_the_middle_steps_of_the_clip_are_kept_and_padding_left_out() -> None:
    tuned = random_hubert()
    pcm = (np.random.default_rng(0).standard_normal(20 * 640) * 3000).astype(np.int16)
    steps = torch.from_numpy(logfbank(pcm)[:20])
    window = F.pad(steps, (0, 0, 6, 5))  # of 31 steps; its middle, 15, is the clip's step 9
    whole = tuned.model.encode([F.layer_norm(steps, (104,))], None)[0]
    assert whole.isfinite().all()
    assert torch.allclose(tuned(window[None])[0], whole[7:12], atol=1e-5)


def test_at_the_edge_the_last_step_is_repeated() -> None:
    tuned = random_hubert()
    window = torch.zeros(1, 11, 104)
    window[0, :6] = torch.randn(6, 104)  # the middle, step 5, is the clip's last
    out = tuned(window)[0]
    assert torch.equal(out[2], out[3]) and torch.equal(out[3], out[4])


def test_only_the_top_layers_learn() -> None:
    tuned = TunedHubert(SMALL, audio(layers=1))
    trained = {
        name.split(".")[1]
        for name, p in tuned.model.named_parameters()
        if p.requires_grad and "layers" in name
    }
    assert trained == {"2"}
    with pytest.raises(ConfigError, match="with 3 layers"):
        TunedHubert(SMALL, audio(layers=4))


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for name, content in (("missing.pt", None), ("text.pt", b"not a checkpoint")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=name):
            load_hubert(audio(tmp_path / name))


def test_fine_tuning_trains_saves_and_generates(
    store: Path, tiny: Callable[..., TrainConfig], tmp_path: Path, checkpoint: Path
) -> None:
    settings = {"finetune_layers": 1, "checkpoint": str(checkpoint), "context_s": 0.4}
    last = train(tiny(data=str(store), out=str(tmp_path), model={"audio": settings}), lambda text: None)
    before = load_encoder(checkpoint, "audio")[0].state_dict()
    after = ckpt.read_tensors(last, "model")
    changed = {
        name.split(".")[1]
        for name, tensor in before.items()
        if name.startswith("layers.") and not torch.equal(tensor, after[f"encoder.model.{name}"])
    }
    assert changed == {str(load_encoder(checkpoint, "audio")[0].config.layers - 1)}
    model = load_model(tmp_path, "cpu")
    clip = open_dataset(store, "test")[0]
    generated = next(generate(model, [row_job(model, "a", clip, clip)], 4))
    assert generated.done == clip.num_frames
