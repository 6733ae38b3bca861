"""A generated video beside its reference, read when a metric asks for it and shared by all metrics.

Rules for clips that do not fit one another: both are brought to 25 frames per second, the frames that both
have are compared, and the generated picture is scaled to the reference's size. What was done is recorded in
`syncdiff.evaluate.records.FormatMismatch`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
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
from syncdiff.pipeline.records import F32, I16, U8, Bool, ClipError, Track

# Frames of a clip of up to this size stay in memory, so that it is decoded once for all metrics.
KEPT_BYTES = 256 * 1024 * 1024
# Evaluation clips may be short, and a track is compared with the reference's anyway.
TRACKING = TrackConfig(min_track_frames=5)
SAME_FACE_IOU = 0.3

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

    load_backend: called when faces are first looked for.
    """

    def __init__(self, path: Path, load_backend: Callable[[], FaceBackend]) -> None:
        self.path = path
        self._load_backend = load_backend

    @property
    def info(self) -> MediaInfo:
        """What the file holds."""
        return _unless_failed(self._info)

    @cached_property
    def _info(self) -> MediaInfo | ClipError:
        return _attempt(lambda: probe(self.path))

    @cached_property
    def _video(self) -> Video:
        return open_video(self.path, info=self.info)

    def frames(self) -> Iterator[U8]:
        """The frames [H,W,3] uint8 RGB at 25 per second."""
        for chunk in self._video.chunks(KEPT_BYTES):
            yield from chunk

    @cached_property
    def num_frames(self) -> int:
        """Frames at 25 per second, counted."""
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
        level = loudness(self.sound, self.tracks.num_frames) if self.info.has_audio else None
        tracks = self.tracks.tracks
        order = choose_speaker(tracks, level, self.size_px)
        return merge_tracks([tracks[index] for index in order], self.tracks.num_frames)

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


def _mean_iou(track: Track, other: Faces) -> float:
    """Mean overlap of a track's boxes with the other's, over the frames that both have; 0 where none."""
    stop = min(track.start_frame + len(track), len(other.present))
    span = np.arange(track.start_frame, stop)
    span = span[other.present[span]]
    if not len(span):
        return 0.0
    mine, theirs = track.boxes_px[span - track.start_frame], other.boxes_px[span]
    return float(np.mean([box_iou(a[None], b[None])[0, 0] for a, b in zip(mine, theirs, strict=True)]))


@dataclass(frozen=True)
class ClipPair:
    """A generated clip, its reference where there is one, and the file whose sound drove it."""

    name: str
    generated: Footage
    reference: Footage | None
    sound: Footage

    @property
    def target(self) -> Footage:
        """The reference. Raises ClipError("pair", "no-reference")."""
        if self.reference is None:
            raise ClipError("pair", "no-reference", "this clip has no reference")
        return self.reference

    @cached_property
    def num_frames(self) -> int:
        """Frames that are compared."""
        return min(self.generated.num_frames, self.target.num_frames)

    def frames(self) -> Iterator[tuple[U8, U8]]:
        """(generated, reference), frame by frame, both in the reference's size, as far as both go."""
        same = self.generated.size_px == self.target.size_px
        for generated, reference in zip(self.generated.frames(), self.target.frames(), strict=False):
            yield (generated if same else resize(generated, self.target.size_px)), reference

    @cached_property
    def reference_faces(self) -> Faces:
        """The reference's speaker in the frames that are compared."""
        return self.target.speaker.first(self.num_frames)

    @cached_property
    def generated_faces(self) -> Faces:
        """The same face in the generated clip, in the reference's pixels; without reference its speaker."""
        if self.reference is None:
            return self.generated.speaker
        scale = np.divide(self.target.size_px, self.generated.size_px).astype(np.float32)
        reference = self.reference_faces
        expected = replace(reference, landmarks_px=reference.landmarks_px / scale)
        found = self.generated.face_like(expected).first(self.num_frames)
        return replace(found, landmarks_px=found.landmarks_px * scale)


def resize(frame: U8, size_px: tuple[int, int]) -> U8:
    """Scaled to (width, height): by area where it shrinks, else bilinear."""
    shrinks = size_px[0] * size_px[1] < frame.shape[0] * frame.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, size_px, interpolation=how), np.uint8)
