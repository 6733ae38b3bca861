"""CPBD against the Python package cpbd 1.0.7, run once outside this checkout (tests/golden/README.md)."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from syncdiff.evaluate.metrics.image.cpbd import Cpbd, cpbd, edge_widths
from syncdiff.pipeline.records import U8, ClipError

from ...conftest import StillPair, values_of

GOLDEN = Path(__file__).parents[3] / "golden" / "picture_quality.json"


def pictures() -> dict[str, U8]:
    """Those that the other programs saw: the astronaut in grey, whole, worse, and her face alone."""
    grey = np.asarray(cv2.cvtColor(astronaut(), cv2.COLOR_RGB2GRAY), np.uint8)
    noise = np.random.default_rng(0).normal(0, 15, grey.shape)
    jpeg = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 10])[1]
    return {
        "whole": grey,
        "blurred": cv2.GaussianBlur(grey, (0, 0), 2),
        "noisy": np.clip(grey + noise, 0, 255).astype(np.uint8),
        "jpeg": cv2.imdecode(jpeg, 0),
        "face": grey[20:230, 110:330].copy(),
    }


@pytest.mark.parametrize("name", ["whole", "blurred", "noisy", "face"])
def test_equals_the_package(name: str) -> None:
    assert cpbd(pictures()[name]) == pytest.approx(json.loads(GOLDEN.read_text())[name]["cpbd"], abs=1e-6)


def test_blur_lowers_it() -> None:
    grey = pictures()["face"]
    values = [cpbd(grey), *(cpbd(cv2.GaussianBlur(grey, (0, 0), sigma)) for sigma in (1.0, 2.0, 4.0))]
    assert values == sorted(values, reverse=True) and values[0] > values[1] > 0


def test_the_width_of_an_edge_is_its_ramps() -> None:
    steps = np.zeros(64)
    steps[31:37] = 10, 25, 50, 40, 20, 10  # rises from column 30 to column 36, steepest in between
    ramp = np.cumsum(steps)
    picture = np.tile(ramp, (64, 1)) + np.arange(64)[:, None] * 1e-3  # not all of one direction
    widths = edge_widths(picture)
    assert set(widths[widths > 0].tolist()) and set(widths[widths > 0].tolist()) <= {5, 6, 7}
    assert set(edge_widths(picture[:, ::-1]).ravel().tolist()) == set(widths.ravel().tolist())


def test_no_edges_is_nought_and_small_pictures_are_refused() -> None:
    assert cpbd(np.full((128, 128), 90, np.uint8)) == 0
    grey = np.dstack([pictures()["face"]] * 3)
    assert values_of(Cpbd(), StillPair(grey, grey).pair)["cpbd_original"] == cpbd(grey[..., 0])
    with pytest.raises(ClipError, match="CPBD needs 64x64 pixels, the picture has 60x60"):
        Cpbd().measure(StillPair(grey[:60, :60], grey[:60, :60]).pair)
