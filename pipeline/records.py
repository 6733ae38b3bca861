"""What the stages hand to one another: small frozen records that check themselves when made.

T counts frames at 25 per second, N is the side of a square face crop in pixels, S counts sound samples at
16 kHz. Pixel coordinates are (x, y), x to the right and y down, with the centre of the first pixel at (0, 0).
Images are RGB, uint8, unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FPS = 25
SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FPS

U8: TypeAlias = NDArray[np.uint8]
I16: TypeAlias = NDArray[np.int16]
I32: TypeAlias = NDArray[np.int32]
F32: TypeAlias = NDArray[np.float32]
Bool: TypeAlias = NDArray[np.bool_]


def check_array(
    name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int | None, ...]
) -> None:
    """Raise ValueError unless `array` has this dtype and shape (None stands for any length)."""
    if array.dtype != np.dtype(dtype):
        raise ValueError(f"{name}: expected {np.dtype(dtype).name}, got {array.dtype}")
    fits = array.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


@dataclass(frozen=True)
class Word:
    """A spoken word and where it lies in its clip, in seconds."""

    word: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Clip:
    """One input of a data set, before anything of it has been read.

    `id` is `<layout>/<split>/<path without suffix>`, unique in the data set; `source` the path relative to
    the data set's root, with forward slashes.
    """

    id: str
    path: Path
    source: str
    split: str
    speaker_id: str | None = None
    transcript: str | None = None
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True)
class Track:
    """One face through consecutive frames, in the source's pixels.

    `start_frame` is the frame (at 25 per second) of the first entry. boxes_px [T,4] float32 (x0, y0, x1, y1);
    landmarks_px [T,68,2] float32 in iBUG 300-W order; scores [T] float32, the detector's confidence, carried
    forward between detections; detected [T] bool, False where the face was interpolated over a gap.
    """

    start_frame: int
    boxes_px: F32
    landmarks_px: F32
    scores: F32
    detected: Bool

    def __post_init__(self) -> None:
        frames = len(self.boxes_px)
        if self.start_frame < 0 or frames == 0:
            raise ValueError(
                f"a track needs start_frame >= 0 and frames, got {self.start_frame} and {frames}"
            )
        check_array("boxes_px", self.boxes_px, np.float32, (frames, 4))
        check_array("landmarks_px", self.landmarks_px, np.float32, (frames, 68, 2))
        check_array("scores", self.scores, np.float32, (frames,))
        check_array("detected", self.detected, np.bool_, (frames,))

    def __len__(self) -> int:
        return len(self.boxes_px)

    def part(self, start: int, stop: int) -> Track:
        """The frames [start, stop), counted from this track's first frame."""
        cut = slice(start, stop)
        return Track(
            self.start_frame + start,
            self.boxes_px[cut],
            self.landmarks_px[cut],
            self.scores[cut],
            self.detected[cut],
        )


@dataclass(frozen=True)
class PoseSelection:
    """Head pose and the frames that may condition each frame.

    head_pose_deg [T,3] float32: pitch (positive looks up), yaw (positive looks to the picture's right), roll
    (positive tilts clockwise in the picture). pose_index [T] int32: the pose frame, -1 where there is none.
    identity_index [T,K] int32: reference frames, best first, -1 where there are fewer. Neither ever
    names t itself.
    """

    head_pose_deg: F32
    pose_index: I32
    identity_index: I32

    def __post_init__(self) -> None:
        frames = len(self.head_pose_deg)
        check_array("head_pose_deg", self.head_pose_deg, np.float32, (frames, 3))
        check_array("pose_index", self.pose_index, np.int32, (frames,))
        check_array("identity_index", self.identity_index, np.int32, (frames, None))
        here = np.arange(frames)
        if (self.pose_index == here).any() or (self.identity_index == here[:, None]).any():
            raise ValueError("a frame may not appear among its own conditions")


@dataclass(frozen=True)
class Features:
    """Values of one extractor for one row: values [M,D] float, `rate_hz` steps a second.

    `padded_steps` counts zero steps added at the tail to reach the row's length (negative: steps cut off).
    """

    extractor_id: str
    values: F32
    rate_hz: float
    padded_steps: int = 0


@dataclass(frozen=True)
class Row:
    """One face track, ready for the shard: the columns of `schema.CLIP_SCHEMA` and its features."""

    columns: dict[str, Any]
    features: tuple[Features, ...] = field(default=())


@dataclass(frozen=True)
class Reject:
    """An input that gave no row, and why. `transient`: trying again may help (after a lost worker, say)."""

    source: str
    clip_id: str
    split: str
    stage: str
    reason: str
    detail: str
    transient: bool = False


class ClipError(Exception):
    """A declared failure of one clip: the run goes on and the clip becomes a reject.

    `stage` is the stage that failed, `reason` a short fixed slug ("no-face"), `detail` a sentence for a
    person.
    """

    def __init__(self, stage: str, reason: str, detail: str, *, transient: bool = False) -> None:
        super().__init__(f"{stage}: {reason}: {detail}")
        self.stage = stage
        self.reason = reason
        self.detail = detail
        self.transient = transient

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_clip_error, (self.stage, self.reason, self.detail, self.transient)

    def reject(self, clip: Clip) -> Reject:
        return Reject(clip.source, clip.id, clip.split, self.stage, self.reason, self.detail, self.transient)


def _rebuild_clip_error(stage: str, reason: str, detail: str, transient: bool) -> ClipError:
    return ClipError(stage, reason, detail, transient=transient)
