from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import reduce
from operator import add
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_fid import fid_score, inception
from torch import nn

from syncdiff.evaluate.metrics.distribution.fid import (
    FEATURES,
    Fid,
    Moments,
    build_inception,
    frechet_distance,
    inception_features,
)
from syncdiff.evaluate.metrics.regions import own_crops
from syncdiff.pipeline.records import ClipError

from ...conftest import MovingFootage, StillPair, pair_of


@pytest.fixture(scope="module")
def network(inception_weights: dict[str, torch.Tensor]) -> nn.Module:
    return build_inception(inception_weights)


@pytest.fixture(scope="module")
def original(inception_weights: dict[str, torch.Tensor]) -> inception.InceptionV3:
    """pytorch-fid's own network, whose constructor would download its weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *args, **kwargs: inception_weights)
        return inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[FEATURES]]).eval()


def pictures(count: int, size: tuple[int, int], seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    return [cv2.GaussianBlur(picture, (0, 0), 2) for picture in noise]


def save(folder: Path, frames: list[np.ndarray]) -> Path:
    folder.mkdir()
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{index:04d}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return folder


def test_features_equal_pytorch_fids(network: nn.Module, original: inception.InceptionV3, tmp_path: Path):
    frames = pictures(5, (90, 70), 0)
    files = sorted(save(tmp_path / "frames", frames).iterdir())
    theirs = fid_score.get_activations(files, original, batch_size=5, dims=FEATURES, num_workers=0)
    np.testing.assert_allclose(inception_features(network, frames), theirs, rtol=1e-4, atol=1e-5)


def test_pictures_of_several_sizes(network: nn.Module):
    frames = [*pictures(2, (90, 70), 0), *pictures(2, (64, 80), 1)]
    together = inception_features(network, frames)
    np.testing.assert_allclose(together[2], inception_features(network, frames[2:3])[0], rtol=1e-4, atol=1e-5)
    assert inception_features(network, []).shape == (0, FEATURES)


@settings(max_examples=10, deadline=None)
@given(n=st.integers(40, 90), m=st.integers(40, 90), d=st.integers(2, 30), seed=st.integers(0, 99))
def test_formula_equals_pytorch_fids(n: int, m: int, d: int, seed: int):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)), rng.normal(1, 2, (m, d))
    theirs = fid_score.calculate_frechet_distance(
        a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False)
    )
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(theirs, rel=1e-6, abs=1e-6)


def test_closed_form():
    """Of normal distributions N(m, s²) in one dimension it is (m - n)² + (s - t)²."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, (50_000, 1)), rng.normal(4, 6, (50_000, 1))
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(9 + 16, rel=0.02)
    assert frechet_distance(Moments.of(a), Moments.of(a)) == pytest.approx(0, abs=1e-9)


def test_fewer_frames_than_features():
    """Both covariances singular, against the eigenvalues of their product."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(12, 50)), rng.normal(0.5, 2, (20, 50))
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root_trace = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real.clip(0)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b) - 2 * root_trace
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 59), min_size=1, max_size=4, unique=True))
def test_moments_add_up(cuts: list[int]):
    vectors = np.random.default_rng(1).normal(3, 2, (60, 4))
    total = reduce(add, (Moments.of(part) for part in np.split(vectors, sorted(cuts))))
    assert total.count == 60
    np.testing.assert_allclose(total.mean, vectors.mean(0))
    covariance = total.covariance_root.T @ total.covariance_root
    np.testing.assert_allclose(covariance, np.cov(vectors, rowvar=False), atol=1e-12)


def test_pool_joins_clips(network: nn.Module):
    metric = Fid(network, "frame")
    made, true = pictures(2, (40, 50), 0), pictures(2, (40, 50), 1)
    clips = [metric.measure(StillPair(a, b, frames=2).pair) for a, b in zip(made, true, strict=True)]
    a = inception_features(network, [made[0], made[0], made[1], made[1]])
    b = inception_features(network, [true[0], true[0], true[1], true[1]])
    expected = frechet_distance(Moments.of(a), Moments.of(b))
    assert metric.pool(clips)["fid"] == pytest.approx(expected, rel=1e-6)
    assert metric.score(clips[0]) == {}


def footage(frames: list[np.ndarray]) -> MovingFootage:
    clip = MovingFootage(np.full(len(frames), 0.1), frames=frames)
    clip.size_px = frames[0].shape[1::-1]
    return clip


def test_pictures_of_another_size_are_taken_as_they_are(network, original, tmp_path: Path):
    """They were scaled to the reference's size first: 0.98 where pytorch-fid's command says 0.26."""
    sides = {"generated": pictures(4, (60, 50), 0), "reference": pictures(4, (120, 100), 1)}
    statistics = Fid(network, "frame").measure(pair_of(*map(footage, sides.values())))
    for side, frames in sides.items():
        files = sorted(save(tmp_path / side, frames).iterdir())
        theirs = fid_score.get_activations(files, original, batch_size=4, dims=FEATURES, num_workers=0)
        np.testing.assert_allclose(statistics[side], theirs, rtol=1e-4, atol=1e-5)


def test_the_face_is_cut_from_each_side_in_its_own_pixels():
    true = footage(pictures(3, (160, 200), 0))
    small = footage([cv2.resize(frame, (100, 80)) for frame in pictures(2, (160, 200), 1)])
    made, reference = (list(side) for side in own_crops(pair_of(small, true), "face"))
    assert [len(made), len(reference)] == [2, 3]
    height, width = reference[0].shape[:2]
    assert np.abs(np.array(made[0].shape[:2]) - (height / 2, width / 2)).max() <= 1


def test_one_frame_has_no_covariance():
    with pytest.raises(ClipError) as error:
        frechet_distance(Moments.of(np.zeros((1, 3))), Moments.of(np.zeros((9, 3))))
    assert error.value.reason == "too-few-frames"


@pytest.mark.long
def test_equals_the_command(inception_weights: dict[str, torch.Tensor], network: nn.Module, tmp_path: Path):
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    torch.save(inception_weights, hub / inception.FID_WEIGHTS_URL.rsplit("/", 1)[1])
    blurred = [cv2.GaussianBlur(picture, (0, 0), 3) for picture in pictures(30, (120, 96), 1)]
    sets = [pictures(30, (90, 70), 0), blurred]
    folders = [save(tmp_path / name, frames) for name, frames in zip("ab", sets, strict=True)]
    command = [sys.executable, "-m", "pytorch_fid", *folders, "--device", "cpu", "--num-workers", "0"]
    shown = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "TORCH_HOME": str(tmp_path)}
    ).stdout
    theirs = float(re.search(r"FID:\s+(\S+)", shown)[1])
    metric = Fid(network, "frame")
    ours = metric.pool([metric.measure(pair_of(*map(footage, sets)))])["fid"]
    assert ours == pytest.approx(theirs, rel=1e-3)
