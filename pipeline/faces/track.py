"""The face tracks of a video: followed frame by frame, cut at shot cuts, gaps filled, jitter removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, pairwise

import numpy as np

from syncdiff.pipeline.faces.backend import BatchBackend, FaceBackend, FrameBackend, box_of_shape
from syncdiff.pipeline.faces.dlib import DlibBackend
from syncdiff.pipeline.faces.landmark_tracker import LandmarkTracker
from syncdiff.pipeline.faces.smooth import fill_gaps, smooth_landmarks
from syncdiff.pipeline.faces.tracker import DetectionTracker, TrackConfig, Tracker, TrackState
from syncdiff.pipeline.plugins import TRACKERS, PluginError, load_plugin, plugin_names
from syncdiff.pipeline.records import U8, ClipError, Track

__all__ = ["FaceBackend", "TrackConfig", "TrackResult", "make_backend", "track_faces"]


@dataclass(frozen=True)
class TrackResult:
    """Tracks of one video in order of appearance, the number of frames seen, first frames of later shots."""

    tracks: tuple[Track, ...]
    num_frames: int
    cuts: tuple[int, ...]


def track_faces(chunks: Iterable[U8], backend: FaceBackend, config: TrackConfig | None = None) -> TrackResult:
    """Follow every face through the frames of one video.

    `chunks` are consecutive frames, RGB uint8 [t,H,W,3]; where they are divided makes no difference. Only the
    current chunk is held; what is kept of a frame is a face's landmarks.

    Raises ClipError("track", reason) when no track is left: "no-face" (none found), "profile-only" (found,
    but always turned too far from the camera), "face-too-small" (below `min_face_px`), "track-too-short"
    (below `min_track_frames`, or seen in less than `min_coverage` of its frames).
    """
    config = config or TrackConfig()
    tracker = _follow(chunks, backend, config)
    cuts = tracker.finish()
    pieces = [piece for face in tracker.done for piece in split_at_cuts(face, cuts)]
    tracks = []
    for piece in pieces:
        detected = np.array(piece.detected, np.bool_)
        if len(piece) < config.min_track_frames or detected.mean() < config.min_coverage:
            continue
        shapes = fill_gaps(np.stack(piece.shapes).astype(np.float32), detected)
        shapes = smooth_landmarks(shapes, config.smooth_window)
        boxes, _ = box_of_shape(shapes)
        tracks.append(Track(piece.start, boxes, shapes, np.array(piece.scores, np.float32), detected))
    if not tracks:
        raise _failure(tracker.frames, sum(map(len, pieces)), tracker.refused, config)
    tracks.sort(key=lambda track: (track.start_frame, float(track.boxes_px[0, 0])))
    return TrackResult(tuple(tracks), tracker.frames, cuts)


def _follow(chunks: Iterable[U8], backend: FaceBackend, config: TrackConfig) -> Tracker:
    frames = (frame for chunk in chunks for frame in chunk)
    if isinstance(backend, BatchBackend):
        matching = DetectionTracker(backend, config)
        while batch := list(islice(frames, backend.batch_frames)):
            for frame, seen in zip(batch, backend.observe(batch), strict=True):
                matching.feed(frame, seen)
        return matching
    if isinstance(backend, FrameBackend):
        carrying = LandmarkTracker(backend, config)
        for frame in frames:
            carrying.feed(frame)
        return carrying
    raise TypeError(f"{type(backend).__name__} is neither a BatchBackend nor a FrameBackend")


def split_at_cuts(face: TrackState, cuts: tuple[int, ...]) -> list[TrackState]:
    """The face's parts between shot cuts, without undetected frames at their ends."""
    inside = [cut - face.start for cut in cuts if 0 < cut - face.start < len(face)]
    parts = []
    for low, high in pairwise([0, *inside, len(face)]):
        seen = np.flatnonzero(face.detected[low:high])
        if len(seen):
            parts.append(face.part(low + int(seen[0]), low + int(seen[-1]) + 1))
    return parts


def _failure(frames: int, followed: int, refused: Counter[str], config: TrackConfig) -> ClipError:
    if followed > refused["profile-only"]:
        detail = f"no face could be followed for {config.min_track_frames} frames in one shot"
        return ClipError("track", "track-too-short", detail)
    if refused["profile-only"]:
        detail = f"all faces that were found in {frames} frames are turned too far from the camera"
        return ClipError("track", "profile-only", detail)
    if refused["face-too-small"]:
        detail = f"no face of {config.min_face_px:g} px or more in {frames} frames"
        return ClipError("track", "face-too-small", detail)
    return ClipError("track", "no-face", f"no face found in {frames} frames")


def make_backend(name: str) -> FaceBackend:
    """The backend of this name: "dlib", "face-alignment", or what a package brings as `syncdiff.trackers`.

    Raises PluginError, a ValueError, for another name; where model files are not there ClipError("track",
    "model-missing") (dlib) or WeightsError (face-alignment), which say how to get them.
    """
    if name == "dlib":
        return DlibBackend()
    if name == "face-alignment":
        from syncdiff.pipeline.faces.fan import FaceAlignmentBackend  # brings torch, which dlib does without

        return FaceAlignmentBackend()
    if name not in plugin_names(TRACKERS):
        names = ["dlib", "face-alignment", *plugin_names(TRACKERS)]
        raise PluginError(f"no tracker {name!r}: there are {', '.join(names[:-1])} and {names[-1]}")
    backend: FaceBackend = load_plugin(TRACKERS, name).value()
    return backend
