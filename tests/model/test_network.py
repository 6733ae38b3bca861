"""The network and its bottleneck: shapes, and what may influence the output and what may not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from syncdiff.model.config import PoseFrameConfig, TrainConfig, load_config
from syncdiff.model.network import AudioStats, Conditions, SpatialBottleneck, SyncDiffNet, VectorBottleneck
from syncdiff.pipeline.config import ConfigError

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("train-*.yaml"))
Tiny = Callable[..., TrainConfig]


def network(config: TrainConfig, channels: int = 3, width: int = 104, steps: int = 5) -> SyncDiffNet:
    torch.manual_seed(0)
    stats = AudioStats(torch.zeros(width), torch.ones(width))
    return SyncDiffNet(config.model, channels, config.model.resolution, stats, steps).eval()


def make_conditions(batch: int, side: int, width: int = 104, steps: int = 5) -> Conditions:
    generator = torch.Generator().manual_seed(1)
    picture = [torch.rand(batch, 3, side, side, generator=generator) * 2 - 1 for _ in range(3)]
    audio = torch.randn(batch, steps, width, generator=generator)
    yes = torch.ones(batch, dtype=torch.bool)
    return Conditions(*picture, yes, audio, yes)


@torch.no_grad()
def run(net: SyncDiffNet, conditions: Conditions) -> torch.Tensor:
    noisy = torch.full_like(conditions.masked, 0.1)
    return net(noisy, torch.full((len(noisy),), 500), conditions)


@pytest.mark.parametrize("kind", ["spatial", "vector", "none", "off"])
def test_shape_and_influence_of_each_bottleneck(kind: str, tiny: Tiny) -> None:
    net = network(tiny(model={"pose": {"bottleneck": kind}}))
    conditions = make_conditions(2, 32)
    out = run(net, conditions)
    assert out.shape == (2, 3, 32, 32)
    other = run(net, replace(conditions, pose=-conditions.pose))
    assert torch.equal(out, other) == (kind == "off")
    without = replace(conditions, has_pose=torch.tensor([False, True]))
    a, b = run(net, without), run(net, replace(without, pose=torch.zeros_like(conditions.pose)))
    assert torch.equal(a[0], b[0]), (
        "a pose frame that is not there must not count, whatever its picture holds"
    )


def test_sound_counts_unless_it_is_dropped(tiny: Tiny) -> None:
    net, conditions = network(tiny()), make_conditions(2, 32)
    other = replace(conditions, audio=conditions.audio + 1)
    assert not torch.equal(run(net, conditions), run(net, other))
    assert torch.equal(run(net, conditions.without_audio()), run(net, other.without_audio()))
    assert not torch.equal(run(net, conditions), run(net, conditions.without_audio()))


def test_the_order_of_the_sound_counts(tiny: Tiny) -> None:
    net, conditions = network(tiny()), make_conditions(1, 32)
    assert not torch.allclose(
        run(net, conditions), run(net, replace(conditions, audio=conditions.audio.flip(1))), atol=1e-6
    )


def test_identity_and_masked_target_count(tiny: Tiny) -> None:
    net, conditions = network(tiny()), make_conditions(1, 32)
    for name in ("identity", "masked"):
        assert not torch.equal(
            run(net, conditions), run(net, replace(conditions, **{name: -getattr(conditions, name)}))
        )


def test_feature_scale_does_not_count(tiny: Tiny) -> None:
    config, conditions = tiny(), make_conditions(1, 32)
    plain = network(config)
    torch.manual_seed(0)
    scaled = SyncDiffNet(
        config.model, 3, 32, AudioStats(torch.full((104,), 7.0), torch.full((104,), 50.0)), 5
    )
    other = replace(conditions, audio=conditions.audio * 50 + 7)
    assert torch.allclose(run(plain, conditions), run(scaled.eval(), other), atol=1e-5)


def test_batches_join() -> None:
    a, b = make_conditions(2, 8), make_conditions(3, 8)
    assert (a + b).audio.shape == (5, 5, 104)
    assert torch.equal((a + b).pose[:2], a.pose)


def test_noise_is_for_training_only_and_codes_are_bounded() -> None:
    torch.manual_seed(0)
    config = PoseFrameConfig(width=3, size=4, hidden=4, noise=0.5)
    picture = torch.randn(2, 3, 32, 32) * 100
    spatial, vector = SpatialBottleneck(config, 3, 32, 16), VectorBottleneck(config, 3, 32, 8)
    assert spatial(picture).shape == (2, 3, 16, 16)
    assert vector(picture).shape == (2, 1, 8)
    for module in (spatial, vector):
        assert not torch.equal(module.train()(picture), module(picture))
        assert torch.equal(module.eval()(picture), module(picture))
    assert spatial.eval()(picture).abs().max() <= 1


def test_a_spatial_code_is_as_small_as_it_says() -> None:
    """What leaves the bottleneck is interpolated from size x size cells: its rank is no larger."""
    bottleneck = SpatialBottleneck(PoseFrameConfig(width=1, size=4, hidden=4), 3, 32, 16).eval()
    codes = torch.stack([bottleneck(torch.randn(1, 3, 32, 32)).flatten() for _ in range(40)])
    assert torch.linalg.matrix_rank(codes, rtol=1e-4) <= 16


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="power of two"):
        SpatialBottleneck(PoseFrameConfig(size=5), 3, 32, 16)


def shrunk(config: TrainConfig) -> TrainConfig:
    """The same kind of network with few channels."""
    levels = len(config.model.unet.channels)
    unet = replace(
        config.model.unet, channels=(8,) * levels, heads=2, cross_width=8, norm_groups=4, layers_per_block=1
    )
    pose = replace(config.model.pose, hidden=4)
    return replace(config, model=replace(config.model, unet=unet, pose=pose))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_and_predicts(path: Path) -> None:
    config = shrunk(load_config(path))
    model: Any = config.model
    latent = model.space == "latent"
    side, channels = (model.resolution // 8, 4) if latent else (model.resolution, 3)
    stats = AudioStats(torch.zeros(12), torch.ones(12))
    net = SyncDiffNet(model, channels, side, stats, model.audio.window).eval()
    picture = torch.zeros(1, channels, side, side)
    yes = torch.ones(1, dtype=torch.bool)
    conditions = Conditions(picture, picture, picture, yes, torch.zeros(1, model.audio.window, 12), yes)
    assert run(net, conditions).shape == picture.shape
