from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncdiff.evaluate.clip_pair import Faces
from syncdiff.evaluate.metrics.lips.lmd import LandmarkDistance
from syncdiff.pipeline.records import ClipError

from ...conftest import MovingFootage, pair_of, values_of


def shifted(faces: Faces, by_px: tuple[float, float]) -> Faces:
    return Faces(faces.present, faces.landmarks_px + np.float32(by_px))


@settings(max_examples=20, deadline=None)
@given(dx=st.floats(-9, 9), dy=st.floats(-9, 9), face_px=st.integers(64, 512))
def test_landmark_distance_of_a_shifted_face(dx: float, dy: float, face_px: int):
    true = MovingFootage(np.full(10, 0.2))
    made = MovingFootage(np.full(10, 0.2), faces=shifted(true.faces, (dx, dy)))
    found = values_of(LandmarkDistance(face_px), pair_of(made, true))
    box, landmarks = true.faces.boxes_px[0], true.faces.landmarks_px[0]
    eyes = landmarks[36:42].mean(axis=0) - landmarks[42:48].mean(axis=0)
    distance = np.hypot(dx, dy)
    assert found["lmd"] == pytest.approx(distance / (box[2] - box[0]) * face_px, abs=1e-3)
    assert found["lmd_relative"] == pytest.approx(100 * distance / np.hypot(*eyes), abs=1e-3)


def test_landmark_distance_looks_at_the_mouth_only():
    true = MovingFootage(np.full(10, 0.2))
    elsewhere = true.faces.landmarks_px.copy()
    elsewhere[:, :48] += 7
    made = MovingFootage(np.full(10, 0.2), faces=Faces(true.faces.present, elsewhere))
    assert values_of(LandmarkDistance(256), pair_of(made, true)) == {"lmd": 0, "lmd_relative": 0}


def test_landmark_distance_without_common_frames():
    true = MovingFootage(np.full(10, 0.2))
    present = np.arange(10) < 5
    here = Faces(present, true.faces.landmarks_px)
    there = Faces(~present, true.faces.landmarks_px)
    with pytest.raises(ClipError) as error:
        LandmarkDistance(256).measure(
            pair_of(MovingFootage(np.zeros(10), faces=here), MovingFootage(np.zeros(10), faces=there))
        )
    assert error.value.reason == "no-face"
