"""Upright patches: where their pixels lie in the frame, and what they are independent of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncdiff.pipeline.faces.dlib import even_exposure, upright_patch
from syncdiff.pipeline.records import F32, U8


def box(x: float, y: float, side: float) -> F32:
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)


def blob(x: float, y: float, radius: float, height: int = 300, width: int = 400) -> U8:
    """A bright soft spot on black, RGB."""
    rows, columns = np.mgrid[:height, :width]
    level = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
    return np.repeat(level[..., None].astype(np.uint8), 3, axis=2)


def centre_of_mass(patch: U8) -> tuple[float, float]:
    weight = patch.astype(np.float64)
    rows, columns = np.mgrid[: len(patch), : len(patch)]
    return float((columns * weight).sum() / weight.sum()), float((rows * weight).sum() / weight.sum())


@settings(max_examples=40, deadline=None)
@given(
    side=st.floats(40, 150),
    roll=st.floats(-3.1, 3.1),
    off=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    face_px=st.sampled_from([24, 64, 128]),
)
def test_the_map_leads_from_patch_to_frame(
    side: float, roll: float, off: tuple[float, float], face_px: int
) -> None:
    spot = (200 + off[0] * side, 150 + off[1] * side)
    patch, to_frame = upright_patch(blob(*spot, radius=side / 12), box(200, 150, side), roll, face_px, 1.5)
    assert patch.shape == (round(face_px * 1.5),) * 2
    found = to_frame[:, :2] @ centre_of_mass(patch) + to_frame[:, 2]
    assert np.hypot(*(found - spot)) < 0.02 * side


def test_the_face_is_upright_and_of_the_asked_size() -> None:
    roll, side = 0.5, 100.0
    _, to_frame = upright_patch(np.zeros((300, 400, 3), np.uint8), box(200, 150, side), roll, 50, 1.0)
    right = to_frame[:, :2] @ (50, 0)
    assert right == pytest.approx((side * np.cos(roll), side * np.sin(roll)))


@pytest.mark.parametrize("place", [(-500, -500, 10), (5, 5, 1e6), (3, 3, 0), (1e5, 0, 200)])
def test_boxes_outside_the_frame_give_a_patch_all_the_same(place: tuple[float, float, float]) -> None:
    frame = np.full((30, 40, 3), 77, np.uint8)
    patch, _ = upright_patch(frame, box(*place), 0.3, 64, 1.5)
    assert (patch == 77).all()


def test_a_large_face_is_averaged_not_skipped() -> None:
    frame = np.zeros((512, 512, 3), np.uint8)
    frame[:, ::2] = 255  # stripes of one pixel
    patch, _ = upright_patch(frame, box(256, 256, 400), 0.0, 50, 1.0)
    assert patch.std() < 8 and abs(patch.mean() - 127.5) < 3


@pytest.mark.parametrize(("gain", "offset"), [(0.25, 0), (0.5, 60), (1, 0), (0.3, 170)])
def test_even_exposure_undoes_gain_and_offset(gain: float, offset: float) -> None:
    texture = np.random.default_rng(0).integers(40, 216, (60, 60), dtype=np.uint8)
    changed = np.clip(texture * gain + offset, 0, 255).astype(np.uint8)
    difference = even_exposure(changed).astype(int) - even_exposure(texture).astype(int)
    assert np.abs(difference).max() <= 4


def test_even_exposure_of_a_flat_patch_is_flat() -> None:
    assert np.ptp(even_exposure(np.full((30, 30), 9, np.uint8))) == 0
