"""The frames that metrics of a single picture look at: whole ones, every fifth."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import cv2
import numpy as np

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.pipeline.records import U8, ClipError

FRAME_STEP = 5  # neighbours are alike


def sampled_frames(pair: ClipPair) -> Iterator[U8]:
    """Every FRAME_STEP-th generated frame [H,W,3] uint8 RGB."""
    return islice(pair.generated.frames(), 0, None, FRAME_STEP)


def sampled_grey(pair: ClipPair, metric: str, min_side_px: int) -> Iterator[U8]:
    """The same in grey [H,W] by OpenCV's weights. Raises ClipError(metric, "too-small") for small ones."""
    width, height = pair.generated.size_px
    if min(width, height) < min_side_px:
        detail = f"{metric.split('_')[0].upper()} needs {min_side_px}x{min_side_px} pixels, the picture has "
        raise ClipError(metric, "too-small", f"{detail}{width}x{height}")
    return (np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8) for frame in sampled_frames(pair))
