"""Where one shot of a video is cut to the next, from thumbnails of consecutive frames."""

from __future__ import annotations

import cv2
import numpy as np

from syncdiff.pipeline.records import F32, U8

_THUMBNAIL_PX = (48, 32)  # width, height


class ShotCuts:
    """Collects one thumbnail a frame, says at once where a cut is suspected, and in the end where cuts are.

    A cut is a frame that differs from the one before in place (mean absolute difference of blurred
    thumbnails) and in content (colour histogram), and by much more than its neighbours do, so that neither
    fast motion (content stays) nor a fade (no single frame stands out) counts. A flash is no cut: the frame
    after it is again like the one before.
    """

    def __init__(self, difference: float = 0.09, histogram: float = 0.25, contrast: float = 2.5) -> None:
        self._difference = difference
        self._histogram = histogram
        self._contrast = contrast
        self._last: list[tuple[F32, F32]] = []
        self._steps: list[tuple[float, float]] = []
        self._skips: list[float] = []

    def add(self, frame: U8) -> bool:
        """Take the next frame (RGB uint8 [H,W,3]); True where a cut before it is suspected."""
        thumbnail, histogram = _signature(frame)
        steps = [float(np.abs(thumbnail - old).mean()) for old, _ in self._last]
        change = 0.5 * float(np.abs(histogram - self._last[-1][1]).sum()) if self._last else 0.0
        self._steps.append((steps[-1] if steps else 0.0, change))
        self._skips.append(steps[0] if len(steps) == 2 else np.inf)
        self._last = [*self._last[-1:], (thumbnail, histogram)]
        return self._is_jump(len(self._steps) - 1)

    def cuts(self) -> tuple[int, ...]:
        """First frames of the shots after the first."""
        found = []
        for frame in range(1, len(self._steps)):
            if not self._is_jump(frame):
                continue
            flash = any(
                self._skips[later] < self._difference
                for later in (frame, frame + 1)
                if later < len(self._skips)
            )
            if not flash:
                found.append(frame)
        return tuple(found)

    def _is_jump(self, frame: int) -> bool:
        step, change = self._steps[frame]
        around = [self._steps[near][0] for near in range(max(1, frame - 3), frame)]
        return (
            step > self._difference
            and change > self._histogram
            and step > self._contrast * float(np.median(around) if around else 0.0)
        )


def _signature(frame: U8) -> tuple[F32, F32]:
    """Blurred thumbnail [h,w,3] in 0..1, and its joint colour histogram [64] that sums to 1."""
    height, width = frame.shape[:2]
    # every n-th pixel, then averaging: reading all of a large frame would cost more than following its faces
    step_y, step_x = max(1, height // (2 * _THUMBNAIL_PX[1])), max(1, width // (2 * _THUMBNAIL_PX[0]))
    sparse = np.ascontiguousarray(frame[::step_y, ::step_x])
    small = np.asarray(cv2.resize(sparse, _THUMBNAIL_PX, interpolation=cv2.INTER_AREA), np.uint8)
    bins = (small >> 6).astype(np.int64)
    codes = bins[..., 0] * 16 + bins[..., 1] * 4 + bins[..., 2]
    histogram = np.bincount(codes.ravel(), minlength=64) / codes.size
    return (small / 255).astype(np.float32), histogram.astype(np.float32)
