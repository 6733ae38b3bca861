"""A generated video beside its reference, read when a metric asks for it and shared by all metrics.

Which pictures are compared. Papers' scripts read both files with OpenCV and compare the k-th picture with the
k-th, whatever the time stamps say. So do we where both files store as many pictures, but for 2 frames or 5 %,
at the same rate (or one of them at a varying rate): a container, an edit list or a delayed picture then
changes nothing. Otherwise both are brought to 25 frames per second, each from its first picture on, and the
frames that both have are compared. The generated picture is scaled to the reference's size. What was done,
and whether the pictures start at another time of the sound than the reference's, is recorded in
`syncdiff.evaluate.records.FormatMismatch`.

Sound is taken in step with the pictures: what is heard before a file's first picture is left out.

Pixels are taken as they are stored: OpenCV, and with it the papers' scripts, does not know of pixels that are
not square. With `square_pixels` such pictures are widened first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from syncdiff.pipeline.faces.backend import FaceBackend, box_iou, box_of_shape
from syncdiff.pipeline.faces.speaker import choose_speaker
from syncdiff.pipeline.faces.track import TrackResult, track_faces
from syncdiff.pipeline.faces.tracker import TrackConfig
from syncdiff.pipeline.features.av_sync import loudness
from syncdiff.pipeline.media.probe import MediaInfo, probe
from syncdiff.pipeline.media.read import Video, open_video, read_audio
from syncdiff.pipeline.records import F32, FPS, I16, U8, Bool, ClipError, Track

# Frames of a clip of up to this size stay in memory, so that it is decoded once for all metrics.
KEPT_BYTES = 256 * 1024 * 1024
# Evaluation clips may be short, and a track is compared with the reference's anyway.
TRACKING = TrackConfig(min_track_frames=5)
SAME_FACE_IOU = 0.3
# Reasons of `track_faces` and `Footage.face_like` that tell of the pictures, not of a missing model.
NO_FACE = ("no-face", "profile-only", "face-too-small", "track-too-short", "other-face")
# Rates in ffmpeg's report have two decimals, and an average depends on how long the last picture is shown.
SAME_RATE = 0.01
MAX_LENGTH_DIFFERENCE_FRAMES = 2  # programs that go by windows of frames drop one or two at the end
MAX_LENGTH_DIFFERENCE_SHARE = 0.05

T = TypeVar("T")


@dataclass(frozen=True)
class Faces:
    """One person's face in each frame: present [T] bool; landmarks_px [T,68,2] float32, NaN where absent."""

    present: Bool
    landmarks_px: F32

    @cached_property
    def boxes_px(self) -> F32:
        """The tracker's face boxes [T,4] (x0, y0, x1, y1), NaN where absent."""
        boxes = np.full((len(self.present), 4), np.nan, np.float32)
        if self.present.any():
            boxes[self.present] = box_of_shape(self.landmarks_px[self.present])[0]
        return boxes

    def first(self, frames: int) -> Faces:
        return Faces(self.present[:frames], self.landmarks_px[:frames])


def _attempt(compute: Callable[[], T]) -> T | ClipError:
    """The result, or the ClipError in its place, so that each metric does not try in vain again."""
    try:
        return compute()
    except ClipError as error:
        return error


def _unless_failed(result: T | ClipError) -> T:
    if isinstance(result, ClipError):
        raise result
    return result


class Footage:
    """One video file. Everything here may raise ClipError, and does so again each time it is asked for.

    load_backend: called when faces are first looked for. by_index: the pictures as they are stored, one by
    one, instead of those at 25 per second.
    """

    def __init__(
        self,
        path: Path,
        load_backend: Callable[[], FaceBackend],
        *,
        square_pixels: bool = False,
        by_index: bool = False,
    ) -> None:
        self.path = path
        self._load_backend = load_backend
        self._square_pixels = square_pixels
        self._by_index = by_index

    @property
    def info(self) -> MediaInfo:
        """What the file holds. Its sound is in step with the first picture: nothing leads."""
        return _unless_failed(self._info)

    @cached_property
    def _info(self) -> MediaInfo | ClipError:
        return _attempt(self._read_info)

    def _read_info(self) -> MediaInfo:
        info = probe(self.path)
        offset_s = info.sound_offset_s - info.lead_frames / FPS
        info = replace(info, lead_frames=0, sound_offset_s=offset_s)
        return info if self._square_pixels else replace(info, width_px=info.stored_width_px)

    @cached_property
    def _video(self) -> Video:
        fps = (
            Fraction(self.info.source_fps or FPS).limit_denominator(1001) if self._by_index else Fraction(FPS)
        )
        return open_video(self.path, info=self.info, fps=fps, by_index=self._by_index)

    @cached_property
    def stored(self) -> Footage:
        """The pictures as they are stored. This very footage where they are those at 25 per second."""
        stored = Footage(self.path, self._load_backend, square_pixels=self._square_pixels, by_index=True)
        same = all(
            a is not None and b is not None and np.array_equal(a, b)
            for a, b in zip_longest(self.frames(), stored.frames())
        )
        return self if same else stored

    @property
    def varying_rate(self) -> bool:
        """Whether pictures are not evenly spaced: their average rate is not that of the time stamps."""
        rates = self.info.source_fps, self.info.nominal_fps
        return None not in rates and not _same_rate(*rates)

    def frames(self) -> Iterator[U8]:
        """The frames [H,W,3] uint8 RGB, from the first picture on."""
        for chunk in self._video.chunks(KEPT_BYTES):
            yield from chunk

    @cached_property
    def num_frames(self) -> int:
        """Number of `frames`, counted."""
        return sum(len(chunk) for chunk in self._video.chunks(KEPT_BYTES))

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        return self.info.width_px, self.info.height_px

    @cached_property
    def sound(self) -> I16:
        """int16 [S], 16 kHz mono, sample 0 at the time of frame 0. ClipError("media", "no-sound")."""
        pcm = read_audio(self.path, info=self.info)
        if pcm is None:
            raise ClipError("media", "no-sound", "the file holds no sound")
        return pcm

    @property
    def tracks(self) -> TrackResult:
        """All faces."""
        return _unless_failed(self._tracks)

    @cached_property
    def _tracks(self) -> TrackResult | ClipError:
        chunks = self._video.chunks
        return _attempt(lambda: track_faces(chunks(KEPT_BYTES), self._load_backend(), TRACKING))

    @cached_property
    def speaker(self) -> Faces:
        """The face that speaks, or else the largest, in each frame: see `syncdiff.pipeline.faces.speaker`."""
        tracks, frames = self.tracks.tracks, self.tracks.num_frames
        level = None
        if self.info.has_audio:
            at_25 = max(1, round(frames * FPS / float(self._video.fps)))
            # A stored picture hears what is heard at its time, as if pictures were evenly spaced.
            level = loudness(self.sound, at_25)[np.arange(frames) * at_25 // frames]
        order = choose_speaker(tracks, level, self.size_px)
        return merge_tracks([tracks[index] for index in order], frames)

    def face_like(self, other: Faces) -> Faces:
        """In each frame the face that lies where the other has its face, in pixels of this video.

        Raises ClipError("track", "other-face") when there is none in any frame.
        """
        frames = min(self.tracks.num_frames, len(other.present))
        ranked = sorted(self.tracks.tracks, key=lambda track: -_mean_iou(track, other))
        near = [track for track in ranked if _mean_iou(track, other) >= SAME_FACE_IOU]
        if not near:
            raise ClipError("track", "other-face", "no face lies where the reference has its face")
        return merge_tracks(near, self.tracks.num_frames).first(frames)


def merge_tracks(tracks: list[Track], num_frames: int) -> Faces:
    """The first track in the list that covers a frame gives its face."""
    present = np.zeros(num_frames, np.bool_)
    landmarks = np.full((num_frames, 68, 2), np.nan, np.float32)
    for track in tracks:
        span = slice(track.start_frame, track.start_frame + len(track))
        free = ~present[span]
        landmarks[span][free] = track.landmarks_px[free]
        present[span] = True
    return Faces(present, landmarks)


def faces_or_none(find: Callable[[], Faces], num_frames: int) -> Faces:
    """The faces that `find` gives; absent in all frames where it raises ClipError because there are none."""
    try:
        return find()
    except ClipError as error:
        if error.reason not in NO_FACE:
            raise
    return merge_tracks([], num_frames)


def _mean_iou(track: Track, other: Faces) -> float:
    """Mean overlap of a track's boxes with the other's, over the frames that both have; 0 where none."""
    stop = min(track.start_frame + len(track), len(other.present))
    span = np.arange(track.start_frame, stop)
    span = span[other.present[span]]
    if not len(span):
        return 0.0
    mine, theirs = track.boxes_px[span - track.start_frame], other.boxes_px[span]
    return float(np.mean([box_iou(a[None], b[None])[0, 0] for a, b in zip(mine, theirs, strict=True)]))


def of_one_length(frames: int, reference_frames: int) -> bool:
    """Whether two clips are equally long, but for what is tolerated."""
    allowed = min(MAX_LENGTH_DIFFERENCE_FRAMES, MAX_LENGTH_DIFFERENCE_SHARE * reference_frames)
    return abs(frames - reference_frames) <= allowed


def _same_rate(a: float | None, b: float | None) -> bool:
    """Whether two rates are the same as far as is known."""
    return a is None or b is None or abs(a - b) <= SAME_RATE * max(a, b)


@dataclass(frozen=True)
class ClipPair:
    """A generated clip, its reference where there is one, and the file whose sound drove it.

    by_time: both at 25 frames per second even where they could be compared picture by picture, for what goes
    with the sound. transcript: what is said, where that is known and asked for.
    """

    name: str
    generated: Footage
    reference: Footage | None
    sound: Footage
    by_time: bool = False
    transcript: str | None = None

    @property
    def target(self) -> Footage:
        """The reference. Raises ClipError("pair", "no-reference")."""
        if self.reference is None:
            raise ClipError("pair", "no-reference", "this clip has no reference")
        return self.reference

    @cached_property
    def by_index(self) -> bool:
        """Whether the k-th stored pictures are compared: about as many on both sides, at one rate."""
        if self.by_time:
            return False
        clips = self.generated, self.target
        one_rate = _same_rate(*(clip.info.source_fps for clip in clips))
        if not (one_rate or any(clip.varying_rate for clip in clips)):
            return False
        return of_one_length(self.generated.stored.num_frames, self.target.stored.num_frames)

    @cached_property
    def compared(self) -> tuple[Footage, Footage]:
        """Generated and reference, so that frame k of one belongs to frame k of the other."""
        if self.by_index:
            return self.generated.stored, self.target.stored
        return self.generated, self.target

    @cached_property
    def num_frames(self) -> int:
        """Frames that are compared."""
        return min(clip.num_frames for clip in self.compared)

    def frames(self) -> Iterator[tuple[U8, U8]]:
        """(generated, reference), frame by frame, both in the reference's size, as far as both go."""
        generated, target = self.compared
        same = generated.size_px == target.size_px
        for picture, reference in zip(generated.frames(), target.frames(), strict=False):
            yield (picture if same else resize(picture, target.size_px)), reference

    @cached_property
    def reference_faces(self) -> Faces:
        """The reference's speaker in the frames that are compared."""
        return self.compared[1].speaker.first(self.num_frames)

    @cached_property
    def generated_faces(self) -> Faces:
        """The same face in the generated clip, in the reference's pixels; without reference its speaker.

        Where the reference has a face and the generated clip has none, or one elsewhere, it is absent: no
        error, since a method must not be spared the clips in which it lost the face.
        """
        if self.reference is None:
            return self.generated.speaker
        generated, target = self.compared
        scale = np.divide(target.size_px, generated.size_px).astype(np.float32)
        reference = self.reference_faces
        expected = replace(reference, landmarks_px=reference.landmarks_px / scale)
        faces = faces_or_none(lambda: generated.face_like(expected), self.num_frames).first(self.num_frames)
        return replace(faces, landmarks_px=faces.landmarks_px * scale)


def resize(frame: U8, size_px: tuple[int, int]) -> U8:
    """Scaled to (width, height): by area where it shrinks, else bilinear."""
    shrinks = size_px[0] * size_px[1] < frame.shape[0] * frame.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, size_px, interpolation=how), np.uint8)
