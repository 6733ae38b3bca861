"""Faces from frame to frame: how they are configured, kept and believed, and the simpler of two trackers.

`DetectionTracker` joins faces that were detected in every frame; `landmark_tracker.LandmarkTracker` detects
seldom and lets the landmarks of a face lead from one frame to the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from syncdiff.pipeline.config import STRICT
from syncdiff.pipeline.faces.backend import FaceBackend, Seen, Shapes, box_iou, box_of_shape
from syncdiff.pipeline.faces.shots import ShotCuts
from syncdiff.pipeline.plugins import TRACKERS, plugin_names
from syncdiff.pipeline.records import F32, U8

SAME_FACE_IOU = 0.25  # boxes of one face in neighbouring frames overlap by more
Interval = Annotated[int, Field(ge=1, le=1000)]  # frames
Score = Annotated[float, Field(ge=-5, le=5)]  # of a detector


def _known_tracker(name: object) -> str:
    names = [*BUILTIN_TRACKERS, *plugin_names(TRACKERS)]
    if name not in names:
        close = get_close_matches(str(name), names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close and isinstance(name, str) else ""
        raise ValueError(f"expected {' or '.join(names)}, got {name!r}{hint}")
    return str(name)


BUILTIN_TRACKERS = ("dlib", "face-alignment")
TrackerName = Annotated[str, BeforeValidator(_known_tracker)]
"""A tracker of ours, or of an installed package."""


@checked_dataclass(frozen=True, config=STRICT)
class TrackConfig:
    """How faces are found, followed, lost and smoothed. Frames are at 25 per second.

    detect_interval: frames between searches of the whole frame while a face is followed; search_interval:
    the same while none is, doubled after every fruitless search until it is detect_interval.
    verify_interval: frames between detector checks of a followed face whose last score was at least
    `sure_score`; below, every frame is checked. doubt_interval: frames between questions how
    uncertain the landmarks are, while they are little so and the shape changes little; else every frame.
    thorough_interval: frames that one thorough check (dlib: MMOD) has to last, for each face. start_score:
    least score of a new face. max_asymmetry: see `asymmetry`; a face turned further counts as a profile.
    max_gap: longest stretch, in frames, that is interpolated when a lost face comes back. min_face_px:
    least side of the face box. max_faces: faces followed at once. min_track_frames: shortest track;
    min_coverage: least share of its frames in which the face was detected. smooth_window: see
    `smooth_landmarks`; 1 leaves the landmarks as they are.
    """

    detect_interval: Interval = 25
    search_interval: Interval = 5
    verify_interval: Interval = 10
    doubt_interval: Interval = 5
    thorough_interval: Interval = 10
    sure_score: Score = 0.8
    start_score: Score = 0.0
    max_asymmetry: Annotated[float, Field(ge=0, le=10)] = 1.0
    max_gap: Annotated[int, Field(ge=0, le=250)] = 12
    min_face_px: Annotated[float, Field(ge=1, le=4000)] = 48.0
    max_faces: Annotated[int, Field(ge=1, le=100)] = 6
    min_track_frames: Annotated[int, Field(ge=1, le=100_000)] = 10
    min_coverage: Annotated[float, Field(ge=0, le=1)] = 0.5
    smooth_window: Annotated[int, Field(ge=1, le=101)] = 9


@dataclass
class TrackState:
    """One face: its first frame and, for each frame from there on, landmarks [68,2], score, and whether
    detected.

    Entries from `sure` on have not been checked by the detector yet. `missing` while the face is lost; its
    entries then repeat the last sure ones. `next_check`, `next_fit`: the frames at which the detector is
    asked, and the predictor for its uncertainty; `next_thorough`: before it the thorough detector is not.
    """

    start: int
    shapes: list[F32] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    detected: list[bool] = field(default_factory=list)
    sure: int = 0
    missing: bool = False
    next_check: int = 0
    next_fit: int = 0
    next_thorough: int = 0

    def __len__(self) -> int:
        return len(self.shapes)

    def place(self) -> tuple[F32, F32]:
        """The last known box [1,4] and roll [1]."""
        return box_of_shape(self.shapes[-1][None])

    def add(self, shape: F32, score: float) -> None:
        self.shapes.append(shape)
        self.scores.append(score)
        self.detected.append(True)

    def lose(self) -> None:
        """What was not checked counts as not seen."""
        self.missing = True
        for index in range(self.sure, len(self)):
            self.shapes[index] = self.shapes[self.sure - 1]
            self.scores[index] = self.scores[self.sure - 1]
            self.detected[index] = False

    def skip(self) -> None:
        """A frame without the face."""
        self.add(self.shapes[-1], self.scores[-1])
        self.detected[-1] = False

    def part(self, start: int, stop: int) -> TrackState:
        """The entries [start, stop)."""
        cut = slice(start, stop)
        shapes, scores, detected = self.shapes[cut], self.scores[cut], self.detected[cut]
        return TrackState(self.start + start, shapes, scores, detected, sure=stop - start)


def asymmetry(landmarks_px: F32) -> F32:
    """How far heads are turned, from landmarks [n,68,2]: 0 seen from the front, 1 with the nose tip before an
    eye.

    |a - b| / (a + b) of the distances from the nose tip (point 30) to the outer corners of the eyes (36 and
    45), along the line between these.
    """
    axis = landmarks_px[:, 45] - landmarks_px[:, 36]
    length = np.maximum(np.hypot(axis[:, 0], axis[:, 1]), 1e-6)
    along = ((landmarks_px[:, 30] - landmarks_px[:, 36]) * axis).sum(axis=1) / length**2
    return np.asarray(np.abs(2 * along - 1), np.float32)


class Tracker:
    """What both trackers share. Of the frames only landmarks and scores are kept.

    `done` holds the faces that have ended; `refused` counts, by reason, faces seen that cannot be used.
    """

    def __init__(self, backend: FaceBackend, config: TrackConfig) -> None:
        self.frames = 0
        self.done: list[TrackState] = []
        self.refused: Counter[str] = Counter()
        self._config = config
        self._max_uncertainty = backend.max_uncertainty
        self._cuts = ShotCuts()
        self._faces: list[TrackState] = []

    def finish(self) -> tuple[int, ...]:
        """End all faces; the first frames of the later shots."""
        self._end(lambda face: True)
        return self._cuts.cuts()

    def _next_frame(self) -> None:
        self.frames += 1
        self._end(lambda face: face.missing and len(face) - face.sure > self._config.max_gap)

    def _fits(self, shapes: Shapes) -> bool:
        """Whether a shape is believed. The more the head is turned, the less uncertain it may be.

        On the far side of a turned head the predictor puts points on the background while it is
        still fairly certain of the rest.
        """
        turned = float(asymmetry(shapes.landmarks_px)[0])
        uncertainty = float(shapes.uncertainty[0]) / self._max_uncertainty
        strictness = 0.7 * float(np.clip((turned - 0.5) / 0.5, 0, 1))
        fits = turned <= self._config.max_asymmetry and uncertainty <= 1 - strictness
        if not fits and turned > 0.5 and uncertainty < 2:
            self.refused["profile-only"] += 1
        return fits

    def _end(self, ended: Callable[[TrackState], bool]) -> None:
        """Move faces to `done`, without the frames in which they were missing at the end."""
        for face in self._faces:
            if ended(face):
                self.done.append(face.part(0, face.sure if face.missing else len(face)))
        self._faces = [face for face in self._faces if not ended(face)]


class DetectionTracker(Tracker):
    """Joins the faces of frames that the backend has seen one by one, by their places."""

    def feed(self, frame: U8, seen: Seen) -> None:
        """The next frame, RGB uint8 [H,W,3], and the faces that were seen in it."""
        cut = self._cuts.add(frame)
        good = [index for index in range(len(seen.scores)) if self._fits(seen.shapes.at(index))]
        boxes, _ = box_of_shape(seen.shapes.landmarks_px)
        for face in sorted(self._faces, key=lambda face: face.missing):
            overlap = box_iou(boxes, face.place()[0])[:, 0]
            best = max(good, key=lambda index: float(overlap[index]), default=None)
            if cut or best is None or overlap[best] <= SAME_FACE_IOU:
                if not face.missing:
                    face.lose()
                face.skip()
                continue
            good.remove(best)
            face.add(seen.shapes.landmarks_px[best], float(seen.scores[best]))
            face.sure = len(face)
            face.missing = False
        for index in good:
            side = float(boxes[index, 2] - boxes[index, 0])
            if side < self._config.min_face_px:
                self.refused["face-too-small"] += 1
            elif len(self._faces) < self._config.max_faces:
                face = TrackState(self.frames, sure=1)
                face.add(seen.shapes.landmarks_px[index], float(seen.scores[index]))
                self._faces.append(face)
        self._next_frame()
