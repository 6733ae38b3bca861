from __future__ import annotations

import numpy as np
import pytest

from syncdiff.evaluate.clip_pair import Faces, merge_tracks
from syncdiff.evaluate.metrics.regions import crops, region_boxes, whole_boxes
from syncdiff.pipeline.faces.backend import MEAN_SHAPE, box_of_shape
from syncdiff.pipeline.records import Track

from ..conftest import StillPair


def track(start: int, frames: int, x: float = 50, side: float = 60) -> Track:
    shape = (MEAN_SHAPE * side + np.array([x, 40])).astype(np.float32)
    landmarks = np.tile(shape, (frames, 1, 1))
    boxes, _ = box_of_shape(landmarks)
    return Track(start, boxes, landmarks, np.ones(frames, np.float32), np.ones(frames, bool))


def test_boxes_in_whole_pixels():
    outside, absent, corner = [-30, 0, 10, 40], [np.nan] * 4, [190, 150, 230, 190]
    boxes = [[10.4, 20.6, 30.4, 40.6], [-5, 0, 15, 20], outside, absent, corner]
    assert whole_boxes(np.array(boxes, np.float32), (200, 160)).tolist() == [
        [10, 21, 30, 41],
        [0, 0, 15, 20],
        [0, 0, 0, 0],  # three quarters of it lie outside
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def test_the_mouth_region_holds_open_mouths_and_lies_in_the_lower_face():
    faces = merge_tracks([track(0, 1)], 1)
    opened = faces.landmarks_px.copy()
    opened[:, 55:60, 1] += 0.2 * 60
    for landmarks in (faces.landmarks_px, opened):
        box = region_boxes(Faces(faces.present, landmarks), "mouth")[0]
        mouth = landmarks[0, 48:68]
        assert (mouth.min(axis=0) > box[:2]).all()
        assert (mouth.max(axis=0) < box[2:]).all()
    eyes = faces.landmarks_px[0, 36:48]
    assert box[1] > eyes[:, 1].max()


def test_crops_leave_out_frames_without_a_face():
    rng = np.random.default_rng(0)
    still = StillPair(*rng.integers(0, 256, (2, 120, 160, 3), dtype=np.uint8), frames=4)
    faces = still.pair.target.speaker
    reference = type(still.pair.target)
    present = np.array([True, False, True, False])
    shown = Faces(present, faces.landmarks_px)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "speaker", property(lambda self: shown))
        assert [len(list(crops(still.pair, region))) for region in ("frame", "face", "mouth")] == [4, 2, 2]
        generated, reference_crop = next(crops(still.pair, "mouth"))
        assert generated.shape == reference_crop.shape
        side = faces.boxes_px[0, 2] - faces.boxes_px[0, 0]
        assert generated.shape[0] == pytest.approx(side / 2, abs=1)
