"""Head pose, mouth opening and sharpness of each frame, and which frames may condition it."""

from __future__ import annotations

import numpy as np

from syncdiff.pipeline.records import F32, check_array

# iBUG 300-W numbering, counted from 0: points 36-41 and 42-47 outline the eyes, 60-67 the inner lips.
RIGHT_EYE = slice(36, 42)
LEFT_EYE = slice(42, 48)
UPPER_INNER_LIP = (61, 62, 63)
LOWER_INNER_LIP = (67, 66, 65)


def interocular_px(landmarks: F32) -> F32:
    """Distance between the eye centres (means of points 36-41 and of 42-47): [T,68,2] to [T], in the input's unit."""
    check_array("landmarks", landmarks, np.float32, (None, 68, 2))
    between = landmarks[:, LEFT_EYE].mean(axis=1) - landmarks[:, RIGHT_EYE].mean(axis=1)
    return np.asarray(np.hypot(between[:, 0], between[:, 1]), np.float32)


def mouth_opening(landmarks: F32) -> F32:
    """Gap between the inner lips over the distance between the eye centres: [T,68,2] to [T], about 0 to 0.7.

    The gap is the mean of the distances 61-67, 62-66 and 63-65. Without unit: the same for a face of any size and
    roll. NaN where both eyes lie in one point.
    """
    eyes = interocular_px(landmarks)
    gaps = landmarks[:, UPPER_INNER_LIP] - landmarks[:, LOWER_INNER_LIP]
    opening = np.hypot(gaps[..., 0], gaps[..., 1]).mean(axis=1)
    return np.asarray(np.divide(opening, eyes, out=np.full_like(eyes, np.nan), where=eyes > 0), np.float32)
