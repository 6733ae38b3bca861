"""The dlib backend on a portrait: what it finds, and that tilt, size and exposure make no difference."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

from syncdiff.pipeline.faces.backend import (
    MEAN_SHAPE,
    BatchBackend,
    Detections,
    FrameBackend,
    Seen,
    Shapes,
    box_iou,
    box_of_shape,
)
from syncdiff.pipeline.faces.dlib import DlibBackend
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


def test_the_mean_shape_is_the_predictors_own() -> None:
    """From the model file: integers are a count of bytes and these, floats a mantissa and an exponent."""
    spec = importlib.util.find_spec("face_recognition_models")
    assert spec is not None and spec.submodule_search_locations is not None
    model = Path(next(iter(spec.submodule_search_locations))) / "models/shape_predictor_68_face_landmarks.dat"
    with model.open("rb") as file:

        def integer() -> int:
            head = file.read(1)[0]
            value = int.from_bytes(file.read(head & 0x0F), "little")
            return -value if head & 0x80 else value

        version, rows, columns = integer(), integer(), integer()
        assert (version, abs(rows), abs(columns)) == (1, 136, 1)
        values = [integer() * 2.0 ** integer() for _ in range(136)]
    np.testing.assert_allclose(MEAN_SHAPE, np.reshape(values, (68, 2)), atol=6e-5)


@given(x=st.floats(-100, 2000), y=st.floats(-100, 2000), side=st.floats(10, 1000), roll=st.floats(-3.0, 3.0))
def test_box_and_roll_come_back_from_a_shape(x: float, y: float, side: float, roll: float) -> None:
    turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    placed = ((MEAN_SHAPE - 0.5) * side @ turn + (x, y)).astype(np.float32)
    boxes, rolls = box_of_shape(placed[None])
    expected = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    np.testing.assert_allclose(boxes[0], expected, atol=0.002 * side + 2e-3)
    assert rolls[0] == pytest.approx(roll, abs=1e-3)
    assert boxes.dtype == rolls.dtype == np.float32


def test_iou_of_known_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]], np.float32)
    expected = [[1, 1 / 3, 0, 0], [1 / 3, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(box_iou(boxes, boxes), expected, atol=1e-6)
    assert box_iou(np.zeros((0, 4), np.float32), boxes).shape == (0, 4)


@pytest.mark.parametrize("effort", [0, 1, 2])
def test_every_effort_finds_the_face(backend: DlibBackend, portrait: U8, shape: F32, effort: int) -> None:
    close_up = np.ascontiguousarray(portrait[:250, 100:350])
    found = backend.detect(close_up, effort)
    expected, _ = box_of_shape(shape - np.array([100, 0], np.float32))
    assert len(found) == 1 and found.scores[0] > 0.5
    assert box_iou(found.boxes_px, expected)[0, 0] > 0.6


def test_a_small_face_takes_effort(backend: DlibBackend, portrait: U8) -> None:
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
    assert again.doubt[0] < 0.5 * backend.max_doubt


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


def test_doubt_and_verification_tell_face_from_background(
    backend: DlibBackend, portrait: U8, shape: F32
) -> None:
    box, roll = box_of_shape(shape)
    assert backend.verify(portrait, box[0], float(roll[0])) > 1
    assert backend.verify(portrait, box[0], float(roll[0]), thorough=True) > 0.5
    for shift in ((250, 0), (-100, 250), (150, 300)):
        elsewhere = box + np.tile(np.array(shift, np.float32), 2)
        assert backend.fit(portrait, elsewhere, UPRIGHT).doubt[0] > backend.max_doubt
        assert backend.verify(portrait, elsewhere[0], 0.0) < 0
        assert backend.verify(portrait, elsewhere[0], 0.0, thorough=True) < backend.min_score


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (16, 16), (8, 2000)])
@pytest.mark.parametrize("effort", [0, 1, 2])
def test_pictures_of_any_size_are_searched(backend: DlibBackend, size: tuple[int, int], effort: int) -> None:
    assert len(backend.detect(np.zeros((*size, 3), np.uint8), effort)) == 0


def test_no_boxes_no_shapes(backend: DlibBackend, portrait: U8) -> None:
    shapes = backend.fit(portrait, np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    assert shapes.landmarks_px.shape == (0, 68, 2)


def test_records_check_themselves() -> None:
    with pytest.raises(ValueError, match="boxes_px"):
        Detections(np.zeros((2, 4), np.float32), np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="landmarks_px"):
        Shapes(np.zeros((1, 5, 2), np.float32), np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="scores"):
        Seen(np.zeros(2, np.float32), Shapes(np.zeros((1, 68, 2), np.float32), np.zeros(1, np.float32)))


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
