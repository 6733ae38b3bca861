"""Mean shape, face boxes and records of the backends' interface."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncdiff.pipeline.faces.backend import MEAN_SHAPE, Detections, Seen, Shapes, box_iou, box_of_shape


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


def test_records_check_themselves() -> None:
    with pytest.raises(ValueError, match="boxes_px"):
        Detections(np.zeros((2, 4), np.float32), np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="landmarks_px"):
        Shapes(np.zeros((1, 5, 2), np.float32), np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="scores"):
        Seen(np.zeros(2, np.float32), Shapes(np.zeros((1, 68, 2), np.float32), np.zeros(1, np.float32)))
