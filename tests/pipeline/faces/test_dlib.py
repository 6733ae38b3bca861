"""The dlib backend on a portrait: what it finds, and that tilt, size and exposure make no difference."""

from __future__ import annotations

import importlib.util

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from syncdiff.pipeline.faces.backend import (
    BatchBackend,
    FrameBackend,
    box_iou,
    box_of_shape,
)
from syncdiff.pipeline.faces.dlib import DlibBackend, even_exposure, upright_patch
from syncdiff.pipeline.faces.head_pose import interocular_px
from syncdiff.pipeline.faces.track import make_backend
from syncdiff.pipeline.records import F32, U8, ClipError

UPRIGHT = np.zeros(1, np.float32)


@pytest.fixture(scope="module")
def backend() -> DlibBackend:
    return DlibBackend()


@pytest.fixture(scope="module")
def portrait() -> U8:
    """Skimage's astronaut: one face of about 110 px."""
    return np.asarray(data.astronaut(), np.uint8)


@pytest.fixture(scope="module")
def shape(backend: DlibBackend, portrait: U8) -> F32:
    """Its landmarks [1,68,2], settled."""
    shapes = backend.fit(portrait, backend.detect(portrait).boxes_px[:1], UPRIGHT)
    return backend.fit(portrait, *box_of_shape(shapes.landmarks_px)).landmarks_px


def distance(a: F32, b: F32) -> float:
    """Mean distance of corresponding points, in distances between the eyes of `b`."""
    return float(np.hypot(*np.moveaxis(a - b, -1, 0)).mean() / interocular_px(b).mean())


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_detector_level_finds_the_face(
    backend: DlibBackend, portrait: U8, shape: F32, level: int
) -> None:
    close_up = np.ascontiguousarray(portrait[:250, 100:350])
    found = backend.detect(close_up, level)
    expected, _ = box_of_shape(shape - np.array([100, 0], np.float32))
    assert len(found) == 1 and found.scores[0] > 0.5
    assert box_iou(found.boxes_px, expected)[0, 0] > 0.6


def test_a_small_face_takes_a_higher_level(backend: DlibBackend, portrait: U8) -> None:
    small = np.asarray(cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_AREA), np.uint8)
    assert len(backend.detect(small, 0)) == 0
    assert len(backend.detect(small, 1)) == 1


def test_detection_on_a_reduced_picture_gives_frame_pixels(portrait: U8) -> None:
    large = np.asarray(cv2.resize(portrait, (1536, 1536), interpolation=cv2.INTER_LINEAR), np.uint8)
    found = DlibBackend(search_side_px=512).detect(large)
    small = DlibBackend().detect(portrait)
    np.testing.assert_allclose(found.boxes_px[0], 3 * small.boxes_px[0], atol=12)


def test_landmarks_settle(backend: DlibBackend, portrait: U8, shape: F32) -> None:
    """Fitting again from the box of the landmarks changes them little: what carrying faces relies on."""
    again = backend.fit(portrait, *box_of_shape(shape))
    assert distance(again.landmarks_px, shape) < 0.01
    assert again.uncertainty[0] < 0.5 * backend.max_uncertainty


@pytest.mark.parametrize("degrees", [20, 60, 135, 180, -90])
def test_tilt_makes_no_difference(backend: DlibBackend, portrait: U8, shape: F32, degrees: float) -> None:
    middle = shape[0].mean(axis=0)
    turn = cv2.getRotationMatrix2D((float(middle[0]), float(middle[1])), -degrees, 1.0)
    turned = np.asarray(cv2.warpAffine(portrait, turn, (512, 512)), np.uint8)
    expected = (shape @ turn[:, :2].T + turn[:, 2]).astype(np.float32)
    fitted = backend.fit(turned, *box_of_shape(expected))
    assert distance(fitted.landmarks_px, expected) < 0.03
    box, roll = box_of_shape(expected)
    assert np.rad2deg(roll[0]) == pytest.approx((degrees + 180) % 360 - 180, abs=8)
    assert backend.verify(turned, box[0], float(roll[0])) > 0.5


@pytest.mark.parametrize("scale", [0.4, 1.7, 3.0])
def test_size_makes_little_difference(backend: DlibBackend, portrait: U8, shape: F32, scale: float) -> None:
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=how), np.uint8)
    expected = ((shape + 0.5) * scale - 0.5).astype(np.float32)
    fitted = backend.fit(resized, *box_of_shape(expected))
    assert distance(fitted.landmarks_px, expected) < 0.03


@pytest.mark.parametrize("gain", [1 / 8, 1 / 3])
def test_exposure_makes_little_difference(
    backend: DlibBackend, portrait: U8, shape: F32, gain: float
) -> None:
    fitted = backend.fit((portrait * gain).astype(np.uint8), *box_of_shape(shape))
    assert distance(fitted.landmarks_px, shape) < 0.04


def test_uncertainty_and_verification_tell_face_from_background(
    backend: DlibBackend, portrait: U8, shape: F32
) -> None:
    box, roll = box_of_shape(shape)
    assert backend.verify(portrait, box[0], float(roll[0])) > 1
    assert backend.verify(portrait, box[0], float(roll[0]), thorough=True) > 0.5
    for shift in ((250, 0), (-100, 250), (150, 300)):
        elsewhere = box + np.tile(np.array(shift, np.float32), 2)
        assert backend.fit(portrait, elsewhere, UPRIGHT).uncertainty[0] > backend.max_uncertainty
        assert backend.verify(portrait, elsewhere[0], 0.0) < 0
        assert backend.verify(portrait, elsewhere[0], 0.0, thorough=True) < backend.min_score


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (16, 16), (8, 2000)])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_pictures_of_any_size_are_searched(backend: DlibBackend, size: tuple[int, int], level: int) -> None:
    assert len(backend.detect(np.zeros((*size, 3), np.uint8), level)) == 0


def test_no_boxes_no_shapes(backend: DlibBackend, portrait: U8) -> None:
    shapes = backend.fit(portrait, np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    assert shapes.landmarks_px.shape == (0, 68, 2)


def test_backends_are_told_apart(backend: DlibBackend) -> None:
    assert isinstance(backend, FrameBackend) and not isinstance(backend, BatchBackend)
    assert isinstance(make_backend("dlib"), DlibBackend)
    with pytest.raises(ValueError, match="there are dlib and face-alignment"):
        make_backend("mediapipe")


def test_missing_models_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ClipError, match="pip install face-recognition-models") as caught:
        DlibBackend()
    assert (caught.value.stage, caught.value.reason) == ("track", "model-missing")


# Upright patches: where their pixels lie in the frame, and what they are independent of


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
