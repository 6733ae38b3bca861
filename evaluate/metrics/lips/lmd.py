"""LMD: how far the generated mouth's landmarks lie from the reference's.

Chen et al., "Lip Movements Generation at a Glance" (2018): the mean Euclidean distance over frames and
points. Papers differ in the landmarks taken and in the size of the face, and seldom say either. Here: points
48 to 67 of iBUG's 68, in place (nothing is aligned); as `lmd` in pixels of a picture in which the
reference's face box (the tracker's: a square from the brows to the chin) has a stated side, and as
`lmd_relative` in percent of the reference's distance between the eye centres.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.regions import MOUTH_POINTS
from syncdiff.pipeline.faces.head_pose import interocular_px
from syncdiff.pipeline.records import ClipError


class LandmarkDistance(Metric):
    """face_px: side of the reference's face box to which `lmd` is scaled."""

    name = "lmd"
    values = (
        Value("lmd", "LMD", "lower", "px", 2),
        Value("lmd_relative", "LMD (relative)", "lower", "% of eye distance", 2),
    )

    def __init__(self, face_px: int) -> None:
        self._face_px = face_px

    def settings(self) -> dict[str, Any]:
        return {"points": "48-67", "face_px": self._face_px}

    def measure(self, pair: ClipPair) -> Statistics:
        reference, generated = pair.reference_faces, pair.generated_faces
        both = reference.present & generated.present
        if not both.any():
            raise ClipError(self.name, "no-face", "in no frame do both clips have a face")
        points, boxes = reference.landmarks_px[both], reference.boxes_px[both]
        offsets = generated.landmarks_px[both, MOUTH_POINTS] - points[:, MOUTH_POINTS]
        distances = np.hypot(offsets[..., 0], offsets[..., 1]).mean(axis=1)
        return {
            "per_face": distances / (boxes[:, 2] - boxes[:, 0]),
            "per_eye_distance": distances / interocular_px(points),
            "frames_without_face": np.int64(len(both) - both.sum()),
        }

    def score(self, statistics: Statistics) -> dict[str, float]:
        return {
            "lmd": float(np.mean(statistics["per_face"])) * self._face_px,
            "lmd_relative": float(np.mean(statistics["per_eye_distance"])) * 100,
        }
