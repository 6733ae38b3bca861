"""Mouth masks that hide mouth and chin, and whose shape does not tell how far the mouth is open.

A mask drawn along the jaw of its own frame would betray the very thing it hides. So a mask here is a
function of two things only: where eyes and nose are in the frame, which anyone sees outside the mask, and
constants of the clip.
"""

from __future__ import annotations

from typing import Annotated, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from syncdiff.pipeline.config import STRICT
from syncdiff.pipeline.faces.align import smooth_over_time
from syncdiff.pipeline.records import F32, Bool, ClipError, check_array

MaskKind = Literal["lower-half", "mouth-box", "landmarks"]
Share = Annotated[float, Field(ge=0, lt=0.5)]  # of the crop's side

# iBUG numbering from 0: the jaw from below one ear (3) over the chin (8) to below the other (13), the mouth.
HIDDEN_POINTS = (*range(3, 14), *range(48, 68))
# What an opening jaw carries along: the chin and the lower lip.
JAW_POINTS = (*range(5, 12), *range(55, 60), *range(65, 68))
DIRECTIONS = 32  # tangents; where they meet lies 0.5 % beyond the curve, 1 / cos(pi / 32)


@dataclass(frozen=True, config=STRICT)
class MaskConfig:
    """How masks are drawn.

    kind: `lower-half` hides everything from the middle of the crop downwards, the same for every frame;
    `landmarks` a convex polygon around jaw and mouth; `mouth-box` the upright rectangle around that polygon.
    margin: room around the landmarks, as a share of the crop's side.
    opening_room: how much further than anywhere in this clip the jaw may open, as a share of the crop's side
    (a made mouth can be wider open than any of the source); not for `lower-half`, which has room enough.
    """

    kind: MaskKind = "lower-half"
    margin: Share = 0.05
    opening_room: Share = 0.05


def mouth_masks(landmarks_crop_px: F32, face_size_px: int, config: MaskConfig | None = None) -> Bool:
    """Masks [T,N,N], True where the mouth is to be made, for the landmarks [T,68,2] of a clip in crop pixels.

    In every frame the mouth (points 48-67) with the margin around it lies inside as far as it lies in the
    crop, and so do, for `landmarks` and `mouth-box`, the jaw points 3-13; `lower-half` takes in all below the
    mouth. Raises ClipError `degenerate-landmarks` where landmarks are not finite.
    """
    check_array("landmarks_crop_px", landmarks_crop_px, np.float32, (None, 68, 2))
    config = config or MaskConfig()
    size = face_size_px
    if not np.isfinite(landmarks_crop_px).all():
        raise ClipError("mask", "degenerate-landmarks", "landmarks are not finite")
    masks = np.zeros((len(landmarks_crop_px), size, size), np.uint8)
    if config.kind == "lower-half":
        # From the middle down, or from higher up if the lips come above it anywhere in the clip.
        lips_top = float(landmarks_crop_px[:, 48:68, 1].min()) - config.margin * size
        masks[:, int(np.clip(min(size // 2, np.floor(lips_top)), 0, size - 1)) :] = 1
        return masks.view(np.bool_)
    reach = _reach(landmarks_crop_px / np.float32(size), config) * size
    if config.kind == "mouth-box":
        right, bottom, left, top = (reach[:, :: DIRECTIONS // 4] * (1, 1, -1, -1)).T
        edges = np.floor(top), np.ceil(bottom) + 1, np.floor(left), np.ceil(right) + 1
        for mask, (y0, y1, x0, x1) in zip(masks, np.clip(edges, 0, size).astype(int).T, strict=True):
            mask[y0:y1, x0:x1] = 1
    else:
        for mask, corners in zip(masks, _corners(reach), strict=True):
            cv2.fillConvexPoly(mask, corners, 1)
    return masks.view(np.bool_)


def _directions() -> NDArray[np.float64]:
    """Unit vectors [K,2] round the circle, starting to the right and turning downwards."""
    angles = np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _reach(landmarks: F32, config: MaskConfig) -> NDArray[np.float64]:
    """How far the hidden region of each frame reaches in each direction [T,K]: its support function.

    Each hidden point is predicted from the rigid points by a linear map fitted over the clip. What that
    misses in any frame (the moving mouth above all) is granted to the point in every frame. So the region
    holds the point in every frame, yet follows only the head.
    """
    hidden = landmarks[:, HIDDEN_POINTS].astype(np.float64)
    predicted = _predict(landmarks, hidden)
    along = _directions().T
    slack = ((hidden - predicted) @ along).max(axis=0)  # [P,K]
    jaw = np.isin(HIDDEN_POINTS, JAW_POINTS)
    slack[jaw] += config.opening_room * np.maximum(along[1], 0)
    reach = (predicted @ along + slack).max(axis=1) + config.margin
    return np.asarray(reach, np.float64)


def _predict(landmarks: F32, hidden: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ridge regression of the hidden points [T,P,2] on three points of the rigid head: eyes and nose."""
    right = landmarks[:, 36:42].mean(axis=1)
    left = landmarks[:, 42:48].mean(axis=1)
    nose = landmarks[:, 27:31].mean(axis=1)
    signal = smooth_over_time(np.concatenate([right, left, nose], axis=1), 2.0)
    signal -= signal.mean(axis=0)
    mean = hidden.mean(axis=0)
    target = (hidden - mean).reshape(len(hidden), -1)
    # The penalty equals head motion of 1 % of the crop: masks follow heads that turn. For heads that hold
    # still one mask that fits all frames costs little more, and landmark noise does not make it tremble.
    gram = signal.T @ signal + len(signal) * 0.01**2 * np.eye(signal.shape[1])
    weights = np.linalg.solve(gram, signal.T @ target)
    return np.asarray(mean + (signal @ weights).reshape(hidden.shape))


def _corners(reach: NDArray[np.float64]) -> NDArray[np.int32]:
    """Corners [T,K,2] of the polygons whose sides are the tangents at the given reach, in whole pixels."""
    along = _directions()
    following = np.roll(along, -1, axis=0)
    # Where neighbouring tangents meet: the solution of along.x = reach, following.x = next reach.
    turn = np.sin(2 * np.pi / DIRECTIONS)
    ahead = np.roll(reach, -1, axis=1)
    x = (reach * following[:, 1] - ahead * along[:, 1]) / turn
    y = (ahead * along[:, 0] - reach * following[:, 0]) / turn
    return np.asarray(np.rint(np.clip(np.stack([x, y], axis=2), -16_000, 16_000)), np.int32)
