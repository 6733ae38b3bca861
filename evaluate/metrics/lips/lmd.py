"""LMD: how far the generated mouth's landmarks lie from the reference's.

Chen et al., "Lip Movements Generation at a Glance" (2018): the mean Euclidean distance over frames and
points. Papers differ in the landmarks taken and in the size of the face, and seldom say either. Here: points
48 to 67 of iBUG's 68, in place (nothing is aligned); as `lmd` in pixels of a picture in which the
reference's face box (the tracker's: a square from the brows to the chin) has a stated side, and as
`lmd_relative` in percent of the reference's distance between the eye centres.

A frame in which the reference has a face and the generated clip has none is a miss. Left out, it would make
the method best that lost the hardest frames. Its mouth counts as one side of the face box away (the whole of
`face_px`): a face passes for the reference's only where boxes overlap by 30 %, that is about half a side
away, so that no frame with a face scores worse than one without. `lmd_face_lost` is the share of such frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value, face_lost
from syncdiff.evaluate.metrics.regions import MOUTH_POINTS
from syncdiff.pipeline.faces.head_pose import interocular_px
from syncdiff.pipeline.records import ClipError


class LandmarkDistance(Metric):
    """face_px: side of the reference's face box to which `lmd` is scaled."""

    name = "lmd"
    values = (
        Value("lmd", "LMD", "lower", "px", 2),
        Value("lmd_relative", "LMD (relative)", "lower", "% of eye distance", 2),
        face_lost("lmd"),
    )
    version = 2

    def __init__(self, face_px: int) -> None:
        self._face_px = face_px

    def settings(self) -> dict[str, Any]:
        return {"points": "48-67", "face_px": self._face_px}

    def measure(self, pair: ClipPair) -> Statistics:
        reference, generated = pair.reference_faces, pair.generated_faces
        wanted = reference.present
        if not wanted.any():
            raise ClipError(self.name, "no-face", "the reference's face is in no frame")
        points, boxes = reference.landmarks_px[wanted], reference.boxes_px[wanted]
        sides = boxes[:, 2] - boxes[:, 0]
        offsets = generated.landmarks_px[wanted, MOUTH_POINTS] - points[:, MOUTH_POINTS]
        lost = ~generated.present[wanted]
        distances = np.where(lost, sides, np.hypot(offsets[..., 0], offsets[..., 1]).mean(axis=1))
        return {
            "per_face": distances / sides,
            "per_eye_distance": distances / interocular_px(points),
            "lost": lost,
        }

    def score(self, statistics: Statistics) -> dict[str, float]:
        return {
            "lmd": float(np.mean(statistics["per_face"])) * self._face_px,
            "lmd_relative": float(np.mean(statistics["per_eye_distance"])) * 100,
            "lmd_face_lost": float(np.mean(statistics["lost"])) * 100,
        }
