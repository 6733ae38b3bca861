from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncdiff.evaluate.clip_pair import Faces
from syncdiff.evaluate.metrics.lips.lmd import LandmarkDistance
from syncdiff.pipeline.records import ClipError

from ...conftest import MovingFootage, StillFootage, pair_of, values_of


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
    assert values_of(LandmarkDistance(256), pair_of(made, true)) == {
        "lmd": 0,
        "lmd_relative": 0,
        "lmd_face_lost": 0,
    }


@pytest.mark.parametrize("lost", [1, 40, 50])
def test_a_lost_face_is_a_miss(lost: int):
    """A clip with 40 of 50 frames black had the best score of all, since only the others were counted."""
    true = MovingFootage(np.full(50, 0.2))
    far = shifted(true.faces, (12, 9))
    present = np.arange(50) >= lost
    partly = Faces(present, np.where(present[:, None, None], far.landmarks_px, np.nan).astype(np.float32))
    whole, part = (
        values_of(LandmarkDistance(256), pair_of(MovingFootage(np.full(50, 0.2), faces=faces), true))
        for faces in (far, partly)
    )
    assert part["lmd_face_lost"] == 2 * lost
    assert part["lmd"] == pytest.approx(whole["lmd"] * (50 - lost) / 50 + 256 * lost / 50, rel=1e-5)
    assert part["lmd_relative"] > whole["lmd_relative"]


def test_a_clip_without_any_face_is_scored_and_not_dropped():
    true = MovingFootage(np.full(10, 0.2))
    made = StillFootage(np.zeros((160, 200, 3), np.uint8), 10, face=False)
    assert values_of(LandmarkDistance(256), pair_of(made, true))["lmd"] == 256


def test_a_reference_without_a_face_has_no_score():
    nobody = Faces(np.zeros(10, bool), np.full((10, 68, 2), np.nan, np.float32))
    with pytest.raises(ClipError) as error:
        LandmarkDistance(256).measure(
            pair_of(MovingFootage(np.zeros(10)), MovingFootage(np.zeros(10), faces=nobody))
        )
    assert error.value.reason == "no-face"
