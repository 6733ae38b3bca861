"""What the stages hand to one another: small frozen records that check themselves when made.

T counts frames at 25 per second, N is the side of a square face crop in pixels, S counts sound samples at
16 kHz. Pixel coordinates are (x, y), x to the right and y down, with the centre of the first pixel at (0, 0).
Images are RGB, uint8, unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FPS = 25  # what AV-HuBERT, SyncNet and Wav2Lip are trained at, and LRS2 and LRS3 recorded at
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


class RunError(Exception):
    """The run itself could not go on (a full disk, no cluster); the message says why and what to do."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, used or written; the message says why and, where there is one, the
    way out."""


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
        return partial(ClipError, transient=self.transient), (self.stage, self.reason, self.detail)

    def reject(self, clip: Clip) -> Reject:
        return Reject(clip.source, clip.id, clip.split, self.stage, self.reason, self.detail, self.transient)


_ADVICE = {
    # the listing
    "missing-file": "The data set's list names a file that is not there. Fetch it, or take it off the list.",
    "outside-root": "A line of the list leads out of the data set's folder. Correct the list.",
    "listed-twice": "Nothing to do: the first mention was used. Remove the second to be rid of this line.",
    "unreadable-folder": "Give yourself the right to read the folder, then run with --retry-rejects.",
    # the file
    "broken-symlink": "Restore what the link points to, then run with --retry-rejects.",
    "directory": "Rename the folder: it has a video's suffix.",
    "not-a-file": "Nothing to do: pipes, sockets and devices are not read.",
    "empty-file": "Copy or download the file again.",
    "unreadable-file": "Give yourself the right to read the file, then run with --retry-rejects.",
    "read-error": "The disk or the network failed. Run the same command again; it tries these again.",
    "not-media": "The file holds something else than its name says. Remove it or fetch it again.",
    "forbidden-format": "Convert it to MP4 with ffmpeg yourself, if you trust it.",
    "truncated": "The file breaks off. Copy or download it again.",
    "decode-error": "Play it. If it plays, convert it with ffmpeg; if not, fetch it again.",
    "decode-timeout": "ffmpeg hangs on this file. Convert it, or leave it out.",
    "interrupted": "ffmpeg was ended, or the disk is full. Run the same command again; it tries these again.",
    "no-video": "Nothing to do: there is only sound in it.",
    "too-large": "Scale it down first.",
    "too-long": "Cut it into parts first.",
    "too-few-pictures": "It shows a few pictures for very long: its times are wrong, or it is a slide.",
    "start-gap": "Picture and sound begin far apart. Cut the file so that both begin together.",
    # the face
    "no-face": "Look at one. If there is a face, try --tracker face-alignment, or other track settings.",
    "face-too-small": "Lower track.min_face_px if you want such faces; they will be blurred.",
    "profile-only": "Faces turned this far give no reliable lips. Raise track.max_asymmetry to have them.",
    "track-too-short": "The face is seen too briefly or too unsteadily. Lower track.min_track_frames, or try "
    "--tracker face-alignment.",
    "degenerate-landmarks": "The landmarks collapsed. Try --tracker face-alignment; please report it.",
    "model-missing": "Install what the message names, then run with --retry-rejects.",
    # the run
    "internal-error": "A mistake in this program: please report it with the detail shown here.",
    "worker-crashed": "The worker died here twice. Play the clip; leave it out, or report it.",
    "node-lost": "Its machine went away four times. Run the same command again; it tries these again.",
    "out-of-memory": "The machine ran short of memory. Try fewer --workers; the same command tries again.",
    "worker-stuck": "The worker stood still at this clip. Run the same command again; it tries these again.",
}
_OTHERWISE = "See the detail; after a change, run again with --retry-rejects."


def advice(reason: str) -> str:
    """A sentence for a person; a general one for a reason that has none of its own."""
    return _ADVICE.get(reason, _OTHERWISE)
