"""I3D against piergiaj/pytorch-i3d, run once outside this checkout (tests/golden/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import stand_in_weights
import torch

from syncdiff.evaluate.metrics.distribution.i3d import I3d, build_i3d, pad_same

GOLDEN = Path(__file__).parents[3] / "golden" / "i3d.npz"


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return stand_in_weights.filled(I3d())


def assert_original(network: torch.nn.Module, clip: np.ndarray, name: str) -> None:
    with torch.inference_mode():
        scores = network(torch.from_numpy(clip.astype(np.float32))).numpy()
    golden = np.load(GOLDEN)[name]
    np.testing.assert_allclose(scores, golden, atol=1e-4 * np.abs(golden).max())


def test_scores_are_the_originals(network: torch.nn.Module) -> None:
    clip = np.random.default_rng(8).uniform(-1, 1, (1, 3, 11, 224, 224))
    assert_original(network, clip, "scores_11_frames")


@pytest.mark.long
def test_scores_of_16_frames_are_the_originals(network: torch.nn.Module) -> None:
    assert_original(network, np.random.default_rng(7).uniform(-1, 1, (2, 3, 16, 224, 224))[:1], "scores")


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "out"),
    [(224, 7, 2, 112), (11, 7, 2, 6), (28, 3, 2, 14), (7, 3, 1, 7), (7, 2, 2, 4)],
)
def test_padding_gives_a_stride_th_of_the_size(size: int, kernel: int, stride: int, out: int) -> None:
    padded = pad_same(torch.zeros(1, 1, size, 8, 8), (kernel, 1, 1), (stride, 1, 1))
    assert (padded.shape[2] - kernel) // stride + 1 == out
    assert padded.shape[3:] == (8, 8)


def test_weights_of_another_network_are_refused(network: torch.nn.Module) -> None:
    built = build_i3d(network.state_dict())
    assert not built.training
    torch.testing.assert_close(built.logits.conv3d.weight, network.logits.conv3d.weight)
    with pytest.raises(RuntimeError, match="Missing key"):
        build_i3d({"other": torch.zeros(1)})
