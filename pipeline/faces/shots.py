"""Where one shot of a video is cut to the next, from thumbnails of consecutive frames."""

from __future__ import annotations

import cv2
import numpy as np

from syncdiff.pipeline.records import F32, U8

_THUMBNAIL_PX = (48, 32)  # width, height
_FLASH_FRAMES = 2  # a longer one is a shot of its own
# Between 600 pairs of clips the steps are at least 0.089 in place and 0.156 in content; within these clips,
# also when shaken by 2.5 % of their width, panned and zoomed, no single step above 0.08 in place is above
# 0.13 in content and 2.5 times its neighbours.
_LEAST_DIFFERENCE = 0.08
_LEAST_CHANGE = 0.13
_LEAST_CONTRAST = 2.5


class ShotCuts:
    """Collects what it needs of each frame, says at once where a cut is suspected, in the end where cuts are.

    A cut is a frame that differs from the one before in place (mean absolute difference of thumbnails, 0 to
    1) and in content (histogram distance, 0 to 1), and by far more than the frames before did, so that
    neither fast motion (content stays) nor a fade (no frame stands out) counts. A flash of up to two frames
    is no cut: after it everything is as it was before.
    """

    def __init__(self) -> None:
        self._recent: list[tuple[F32, F32]] = []  # thumbnail and histogram, newest last
        self._steps: list[float] = []
        self._changes: list[float] = []
        # k where the frame is again like the one before k frames of flash, else 0
        self._flashes: list[int] = []

    def add(self, frame: U8) -> bool:
        """Take the next frame (RGB uint8 [H,W,3]); True where a cut before it is suspected."""
        thumbnail, histogram = _signature(frame)
        back = [float(np.abs(thumbnail - old).mean()) for old, _ in reversed(self._recent)]
        self._steps.append(back[0] if back else 0.0)
        self._changes.append(0.5 * float(np.abs(histogram - self._recent[-1][1]).sum()) if back else 0.0)
        self._flashes.append(next((k for k, far in enumerate(back) if k and far < _LEAST_DIFFERENCE), 0))
        self._recent = [*self._recent[-_FLASH_FRAMES:], (thumbnail, histogram)]
        return self._is_jump(len(self._steps) - 1)

    def cuts(self) -> tuple[int, ...]:
        """First frames of the shots after the first."""
        jumps = {frame for frame in range(1, len(self._steps)) if self._is_jump(frame)}
        for end, frames in enumerate(self._flashes):
            if frames:
                jumps -= {end - frames, end}
        return tuple(sorted(jumps))

    def _is_jump(self, frame: int) -> bool:
        usual = self._steps[max(1, frame - 3) : frame]
        return (
            self._steps[frame] > _LEAST_DIFFERENCE
            and self._changes[frame] > _LEAST_CHANGE
            and self._steps[frame] > _LEAST_CONTRAST * float(np.median(usual) if usual else 0.0)
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
