"""Faces followed through a video: searched now and then, carried by their own landmarks in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np

from syncdiff.pipeline.detect import DlibBackend, FaceBackend, box_iou, box_of_shape, make_backend
from syncdiff.pipeline.records import F32, U8, ClipError, Track
from syncdiff.pipeline.shots import ShotCuts
from syncdiff.pipeline.smooth import fill_gaps, smooth_landmarks

__all__ = ["DlibBackend", "FaceBackend", "TrackConfig", "TrackResult", "make_backend", "track_faces"]


@dataclass(frozen=True)
class TrackConfig:
    """How faces are followed. Frames are at 25 per second.

    detect_interval: frames between searches of the whole frame while a face is followed; search_interval: the
    same while none is. verify_interval: frames between detector checks of a followed face, while its last
    score was at least `sure_score` (below, it is checked on every frame). start_score: score at which a new
    face is believed. max_gap: longest stretch, in frames, that is interpolated when a lost face comes back.
    max_asymmetry: see `asymmetry`; a face turned further counts as a profile. min_face_px: smallest median
    side of the face box. min_track_frames, min_coverage: shortest track, and smallest share of frames in
    which its face was detected. max_faces: faces followed at once. rigid_window, feature_sigma, jaw_sigma:
    see `smooth_landmarks`, in frames.
    """

    detect_interval: int = 25
    search_interval: int = 5
    verify_interval: int = 5
    sure_score: float = 0.8
    start_score: float = 0.2
    max_gap: int = 12
    max_asymmetry: float = 0.8
    min_face_px: float = 40.0
    min_track_frames: int = 25
    min_coverage: float = 0.5
    max_faces: int = 6
    rigid_window: int = 9
    feature_sigma: float = 2.0
    jaw_sigma: float = 1.0


@dataclass(frozen=True)
class TrackResult:
    """Tracks of one video in order of appearance, the number of frames seen, first frames of later shots."""

    tracks: tuple[Track, ...]
    num_frames: int
    cuts: tuple[int, ...]


def track_faces(chunks: Iterable[U8], backend: FaceBackend, config: TrackConfig | None = None) -> TrackResult:
    """Follow every face through the frames of one video.

    `chunks` are consecutive frames, RGB uint8 [t,H,W,3]; the result does not depend on where they are
    divided. Of the pictures only the current chunk is held.

    Raises ClipError("track", reason) when no track is left: "no-face" (none found), "profile-only" (found,
    but never turned enough to the camera), "face-too-small" (below `min_face_px`), "track-too-short" (below
    `min_track_frames`).
    """
    tracker = _Tracker(backend, config or TrackConfig())
    for chunk in chunks:
        for frame in chunk:
            tracker.feed(frame)
    return tracker.finish()


def asymmetry(landmarks_px: F32) -> F32:
    """How far heads are turned, from landmarks [n,68,2]: 0 seen from the front, 1 when the nose tip hides an
    eye.

    |a - b| / (a + b) of the distances from the nose tip (point 30) to the outer corners of the eyes (36 and
    45), along the line between the eyes.
    """
    axis = landmarks_px[:, 45] - landmarks_px[:, 36]
    length = np.maximum(np.hypot(axis[:, 0], axis[:, 1]), 1e-6)
    along = ((landmarks_px[:, 30] - landmarks_px[:, 36]) * axis).sum(axis=1) / length**2
    return np.asarray(np.abs(2 * along - 1), np.float32)


@dataclass
class _Face:
    """A face being followed. One entry a frame from `start` on; entries after `sure` are not yet verified."""

    start: int
    shapes: list[F32] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    detected: list[bool] = field(default_factory=list)
    sure: int = 0
    missing: bool = False

    @property
    def box(self) -> tuple[F32, F32]:
        return box_of_shape(self.shapes[max(self.sure - 1, 0) if self.missing else -1][None])


class _Tracker:
    def __init__(self, backend: FaceBackend, config: TrackConfig) -> None:
        self._backend = backend
        self._config = config
        self._cuts = ShotCuts()
        self._faces: list[_Face] = []
        self._done: list[_Face] = []
        self._frames = 0
        self._searched = -config.detect_interval
        self._fruitless = 0
        self._refused: dict[str, int] = {}

    def feed(self, frame: U8) -> None:
        cut = self._cuts.add(frame)
        for face in self._faces:
            if not face.missing:
                self._follow(face, frame, check=cut)
        for face in self._faces:
            if face.missing:
                self._find_again(face, frame)
        since = self._frames - self._searched
        followed = any(not face.missing for face in self._faces)
        if cut or since >= (self._config.detect_interval if followed else self._config.search_interval):
            self._search(frame, followed)
        self._frames += 1
        self._close(lambda face: face.missing and len(face.shapes) - face.sure > self._config.max_gap)

    def finish(self) -> TrackResult:
        self._close(lambda face: True)
        cuts = self._cuts.cuts()
        pieces = [piece for face in self._done for piece in _split(face, cuts)]
        tracks = [track for face in pieces if (track := self._as_track(face)) is not None]
        if not tracks:
            raise self._failure()
        tracks.sort(key=lambda track: (track.start_frame, float(track.boxes_px[0, 0])))
        return TrackResult(tuple(tracks), self._frames, cuts)

    def _follow(self, face: _Face, frame: U8, check: bool) -> None:
        """The face's next frame from its last shape; verified when due, or when the shape has jumped."""
        box, roll = face.box
        shape = self._backend.landmarks(frame, box, roll)
        new_box, new_roll = box_of_shape(shape)
        unverified = len(face.shapes) + 1 - face.sure
        sure = face.scores[-1] >= self._config.sure_score
        check = check or not sure or unverified >= self._config.verify_interval or _jumped(box, new_box)
        face.shapes.append(shape[0])
        face.detected.append(True)
        face.scores.append(face.scores[-1])
        if check:
            face.scores[-1] = float(self._backend.verify(frame, new_box, new_roll)[0])
            if face.scores[-1] < self._backend.min_score or self._is_profile(shape):
                self._lose(face)
            else:
                face.sure = len(face.shapes)

    def _lose(self, face: _Face) -> None:
        face.missing = True
        for index in range(face.sure, len(face.shapes)):
            face.detected[index] = False
            face.scores[index] = face.scores[face.sure - 1]

    def _find_again(self, face: _Face, frame: U8) -> None:
        """Look for a lost face around its last place."""
        box, _ = face.box
        if (
            len(face.shapes) == self._frames - face.start
        ):  # lost on an earlier frame: this one has no entry yet
            face.shapes.append(face.shapes[face.sure - 1])
            face.detected.append(False)
            face.scores.append(face.scores[face.sure - 1])
        found = self._look_around(frame, box[0])
        if found is not None:
            self._resume(face, frame, found)

    def _look_around(self, frame: U8, box: F32) -> F32 | None:
        """The best detection near a box [4], or None."""
        side = float(box[2] - box[0])
        height, width = frame.shape[:2]
        x0, y0 = (int(np.clip(box[i] - 0.7 * side, 0, (width, height)[i] - 1)) for i in (0, 1))
        x1, y1 = (
            int(np.clip(box[i + 2] + 0.7 * side, low + 1, (width, height)[i]))
            for i, low in ((0, x0), (1, y0))
        )
        scale = np.float32(_WINDOW_FACE_PX / max(side, 1.0))
        size = (max(1, round((x1 - x0) * float(scale))), max(1, round((y1 - y0) * float(scale))))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        window = np.asarray(cv2.resize(frame[y0:y1, x0:x1], size, interpolation=how), np.uint8)
        detections = self._backend.detect(window)
        boxes = detections.boxes_px / scale + np.array([x0, y0, x0, y0], np.float32)
        near = box_iou(boxes, box[None])[:, 0] > 0.25 if len(boxes) else np.zeros(0, bool)
        return boxes[near][0] if near.any() else None

    def _resume(self, face: _Face, frame: U8, box: F32) -> None:
        shape, score = self._settle(frame, box)
        if score >= self._backend.min_score and not self._is_profile(shape):
            face.shapes[-1], face.scores[-1], face.detected[-1] = shape[0], score, True
            face.sure = len(face.shapes)
            face.missing = False

    def _settle(self, frame: U8, box: F32) -> tuple[F32, float]:
        """Landmarks [1,68,2] from a detector's box, in two passes: the second has the calibrated box."""
        shape = self._backend.landmarks(frame, box[None], np.zeros(1, np.float32))
        shape = self._backend.landmarks(frame, *box_of_shape(shape))
        return shape, float(self._backend.verify(frame, *box_of_shape(shape))[0])

    def _search(self, frame: U8, followed: bool) -> None:
        """Look for new faces in the whole frame, harder each time while nothing is found."""
        self._searched = self._frames
        effort = 0 if followed else self._fruitless % self._backend.efforts
        detections = self._backend.detect(frame, effort)
        self._fruitless = 0 if followed or len(detections) else self._fruitless + 1
        for box in detections.boxes_px:
            known = [face.box[0][0] for face in self._faces]
            if len(known) >= self._config.max_faces:
                return
            if known and box_iou(box[None], np.stack(known)).max() > 0.25:
                continue
            self._begin(frame, box)

    def _begin(self, frame: U8, box: F32) -> None:
        shape, score = self._settle(frame, box)
        if score < self._config.start_score:
            self._refuse("no-face")
        elif self._is_profile(shape):
            self._refuse("profile-only")
        else:
            self._faces.append(_Face(self._frames, [shape[0]], [score], [True], sure=1))

    def _is_profile(self, shape: F32) -> bool:
        return float(asymmetry(shape)[0]) > self._config.max_asymmetry

    def _refuse(self, reason: str) -> None:
        self._refused[reason] = self._refused.get(reason, 0) + 1

    def _close(self, ended: Callable[[_Face], bool]) -> None:
        for face in self._faces:
            if ended(face):
                if not face.missing:
                    face.sure = len(face.shapes)
                for entries in (face.shapes, face.scores, face.detected):
                    del entries[face.sure :]
                self._done.append(face)
        self._faces = [face for face in self._faces if not ended(face)]

    def _as_track(self, face: _Face) -> Track | None:
        config = self._config
        detected = np.array(face.detected, np.bool_)
        if len(detected) < config.min_track_frames or detected.mean() < config.min_coverage:
            self._refuse("track-too-short")
            return None
        shapes = fill_gaps(np.stack(face.shapes), detected)
        shapes = smooth_landmarks(shapes, config.rigid_window, config.feature_sigma, config.jaw_sigma)
        boxes, _ = box_of_shape(shapes)
        if np.median(boxes[:, 2] - boxes[:, 0]) < config.min_face_px:
            self._refuse("face-too-small")
            return None
        return Track(face.start, boxes, shapes, np.array(face.scores, np.float32), detected)

    def _failure(self) -> ClipError:
        refused = self._refused
        if refused.get("face-too-small"):
            return ClipError(
                "track", "face-too-small", f"no face of {self._config.min_face_px:.0f} px or more"
            )
        if refused.get("track-too-short"):
            wanted = self._config.min_track_frames
            return ClipError(
                "track", "track-too-short", f"no face could be followed for {wanted} frames in one shot"
            )
        if refused.get("profile-only"):
            return ClipError(
                "track", "profile-only", "faces were found, all of them turned too far from the camera"
            )
        return ClipError("track", "no-face", f"no face found in {self._frames} frames")


_WINDOW_FACE_PX = 100  # a lost face is looked for at this size: HOG's window is 80 px


def _jumped(old: F32, new: F32) -> bool:
    """Whether a box [1,4] moved by more than a quarter of its side, or its size changed by a fifth."""
    side = float(old[0, 2] - old[0, 0])
    moved = float(np.abs((new - old)[0].reshape(2, 2).mean(axis=0)).max())
    return moved > 0.25 * side or not 0.8 < float(new[0, 2] - new[0, 0]) / max(side, 1e-6) < 1.25


def _split(face: _Face, cuts: tuple[int, ...]) -> list[_Face]:
    """The face's parts between shot cuts, without undetected frames at their ends."""
    edges = [
        0,
        *(cut - face.start for cut in cuts if 0 < cut - face.start < len(face.shapes)),
        len(face.shapes),
    ]
    parts = []
    for low, high in pairwise(edges):
        while low < high and not face.detected[low]:
            low += 1
        while low < high and not face.detected[high - 1]:
            high -= 1
        if low < high:
            cut = slice(low, high)
            parts.append(_Face(face.start + low, face.shapes[cut], face.scores[cut], face.detected[cut]))
    return parts
