"""NIQE against BasicSR's, run once outside this checkout (tests/golden/README.md)."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from syncdiff.evaluate.metrics.image.niqe import Niqe, fit_aggd, halve, picture_features
from syncdiff.pipeline.records import ClipError
from syncdiff.pipeline.weights.published import find

from ...conftest import StillPair, values_of
from .test_cpbd import GOLDEN, pictures


def made_up() -> Niqe:
    """A Gaussian that stands for the release's, which is fetched and not part of the project."""
    return Niqe(np.linspace(0.2, 1.0, 36), np.diag(np.linspace(0.05, 0.5, 36)))


@pytest.mark.parametrize("name", ["whole", "face"])
def test_equals_basicsr_under_a_made_up_gaussian(name: str) -> None:
    expected = json.loads(GOLDEN.read_text())[name]["niqe_made_up"]
    assert made_up().distance(pictures()[name]) == pytest.approx(expected, rel=1e-4)


def test_equals_basicsr_with_the_releases_parameters_where_they_are() -> None:
    if (found := find("niqe")) is None:
        pytest.skip("syncdiff-prep weights fetch niqe")
    metric, golden = Niqe.from_file(found.path), json.loads(GOLDEN.read_text())
    for name, picture in pictures().items():
        if name != "jpeg":  # OpenCV's JPEG may differ by a level
            assert metric.distance(picture) == pytest.approx(golden[name]["niqe"], rel=1e-3)
    assert golden["whole"]["niqe"] < golden["blurred"]["niqe"] < golden["noisy"]["niqe"]


def test_blur_and_noise_lie_farther_from_the_clean_pictures_statistics() -> None:
    clean = pictures()["whole"]
    features = picture_features(clean)
    metric = Niqe(features.mean(axis=0), np.cov(features, rowvar=False))
    blurs = [metric.distance(cv2.GaussianBlur(clean, (0, 0), sigma)) for sigma in (0.7, 1.5, 3.0)]
    assert metric.distance(clean) == pytest.approx(0, abs=1e-6)
    assert 0 < blurs[0] < blurs[1] < blurs[2]
    assert metric.distance(pictures()["noisy"]) > 1


@pytest.mark.parametrize("shape", [1.0, 2.0])
def test_the_shape_of_a_generalised_gaussian_is_found(shape: float) -> None:
    rng = np.random.default_rng(4)
    values = rng.laplace(size=(400, 400)) if shape == 1 else rng.normal(size=(400, 400))
    found, left, right = fit_aggd(values)
    assert found == pytest.approx(shape, rel=0.03)
    assert left == pytest.approx(right, rel=0.02)


def test_halving_keeps_constants_and_straight_slopes() -> None:
    assert halve(np.full((12, 16), 7.0)) == pytest.approx(np.full((6, 8), 7.0))
    slope = np.tile(np.arange(32.0), (16, 1))
    assert halve(slope)[4, 3:-3] == pytest.approx(2 * np.arange(16)[3:-3] + 0.5)


def test_small_and_empty_pictures() -> None:
    grey = np.dstack([pictures()["face"]] * 3)
    assert values_of(made_up(), StillPair(grey, grey).pair)["niqe"] > 0
    with pytest.raises(ClipError, match="NIQE needs 192x192 pixels, the picture has 180x180"):
        made_up().measure(StillPair(grey[:180, :180], grey[:180, :180]).pair)
    assert np.isnan(made_up().distance(np.full((200, 200), 90, np.uint8)))


def test_the_parameters_are_read_without_pickle(tmp_path: Path) -> None:
    path = tmp_path / "niqe_pris_params.npz"
    np.savez(path, mu_pris_param=np.ones((1, 36)), cov_pris_param=np.eye(36), gaussian_window=np.ones((7, 7)))
    assert Niqe.from_file(path).distance(pictures()["face"]) > 0
    np.savez(path, mu_pris_param=np.array([{}], object), cov_pris_param=np.eye(36))
    with pytest.raises(ValueError, match="pickle"):
        Niqe.from_file(path)
