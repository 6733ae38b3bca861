"""Faces of a video file: its frames in any order, the faces tracked and cut out, pasted back and written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from syncdiff.model.generate import Index, scratch
from syncdiff.pipeline.faces.align import AlignConfig, crop_faces, crop_matrices, paste_back, to_crop
from syncdiff.pipeline.faces.backend import FaceBackend
from syncdiff.pipeline.faces.head_pose import head_pose_deg, mouth_opening, sharpness
from syncdiff.pipeline.faces.mask import MaskConfig, mouth_masks
from syncdiff.pipeline.faces.reference_frames import PoseConfig, select
from syncdiff.pipeline.faces.speaker import choose_speaker
from syncdiff.pipeline.faces.track import track_faces
from syncdiff.pipeline.faces.tracker import TrackConfig
from syncdiff.pipeline.features.av_sync import loudness
from syncdiff.pipeline.media.images import decode_jpeg, decode_mask, encode_jpeg, encode_mask
from syncdiff.pipeline.media.probe import MediaInfo, probe
from syncdiff.pipeline.media.read import Video, open_video
from syncdiff.pipeline.media.write import PLAYABLE, SoundFile, write_video
from syncdiff.pipeline.records import F32, FPS, I16, U8, Bool, ClipError, Track

JPEG_QUALITY = 95  # of the crops kept while a clip is generated; they only condition the network


def frames_in_order(path: Path, rate: Fraction, order: Index) -> Iterator[U8]:
    """Frames [H,W,3] of a file at `rate`, in an order (frame numbers, from the first on).

    Decoded as they come while the order goes forwards; an order that turns back keeps the frames, many of
    them on disk. Raises ClipError where the file cannot be read or ends too early.
    """
    video = open_video(path, fps=rate)
    if (np.diff(order) > 0).all():
        yield from _pick(video, iter(order.tolist()))
        return
    first, last = int(order.min()), int(order.max())
    kept = scratch((last - first + 1, video.info.height_px, video.info.width_px, 3))
    for index, frame in enumerate(_pick(video, iter(range(first, last + 1)))):
        kept[index] = frame
    for index in order - first:
        yield kept[index]


def _pick(video: Video, wanted: Iterator[int]) -> Iterator[U8]:
    """Frames by rising number."""
    number, target = 0, next(wanted, None)
    for chunk in video.chunks():
        while target is not None and target < number + len(chunk):
            yield chunk[target - number]
            target = next(wanted, None)
        if target is None:
            return
        number += len(chunk)
    raise ClipError("media", "too-short", f"{video.path}: frame {target} is asked for, it has {number}")


def exact_rate(info: MediaInfo) -> Fraction:
    """The frame rate that a file's two decimals stand for: 29.97 is 30000/1001, for one."""
    stated = info.source_fps or info.nominal_fps or float(FPS)
    ntsc = Fraction(round(stated * 1001 / 1000) * 1000, 1001)
    if abs(float(ntsc) - stated) < 0.006 and abs(stated - round(stated)) > 0.006:
        return ntsc
    return Fraction(stated).limit_denominator(100)


@dataclass(frozen=True)
class TrackedFace:
    """One face of a video: crops and masks at the network's resolution, and what chooses conditions."""

    track: Track
    crops: tuple[bytes, ...]
    mouth_masks: tuple[bytes, ...]
    crop_matrix: F32
    head_pose_deg: F32
    identity_index: NDArray[np.integer[Any]]

    def frames(self, indices: Sequence[int]) -> U8:
        return np.stack([decode_jpeg(self.crops[i]) for i in indices])

    def masks(self, indices: Sequence[int]) -> Bool:
        return np.stack([decode_mask(self.mouth_masks[i]) for i in indices])

    @property
    def span(self) -> range:
        """The frames of the video it covers."""
        return range(self.track.start_frame, self.track.start_frame + len(self.track))


def find_faces(
    video: Video, own_sound: I16 | None, backend: FaceBackend, size: int, preparation: dict[str, Any]
) -> tuple[list[TrackedFace], int]:
    """The speaker of each shot, ready to be redrawn, and the number of frames.

    Raises ClipError as `track_faces` does.
    """
    tracking = track_faces(video.chunks(), backend, TrackConfig())
    tracks = speakers(tracking.tracks, tracking.num_frames, own_sound, video)
    mask = MaskConfig(**preparation["mask"])
    align = AlignConfig(**preparation["align"])
    pose = PoseConfig(**preparation["pose"])
    matrices = [crop_matrices(track.landmarks_px, size, align) for track in tracks]
    faces = []
    for track, matrix, (crops, sharp) in zip(
        tracks, matrices, _cut(video, tracks, matrices, size), strict=True
    ):
        landmarks = track.landmarks_px
        masks = mouth_masks(to_crop(landmarks, matrix), size, mask)
        head, opening = head_pose_deg(landmarks), mouth_opening(landmarks)
        chosen = select(head, opening, np.array(sharp, np.float32), pose, track.detected)
        faces.append(
            TrackedFace(
                track=track,
                crops=tuple(crops),
                mouth_masks=tuple(map(encode_mask, masks)),
                crop_matrix=matrix,
                head_pose_deg=chosen.head_pose_deg,
                identity_index=chosen.identity_index,
            )
        )
    return faces, tracking.num_frames


def speakers(tracks: Sequence[Track], frames: int, own_sound: I16 | None, video: Video) -> list[Track]:
    """Tracks to redraw, by first frame: best speakers first, each that shares no frame with a better one."""
    level = None
    if own_sound is not None and len(own_sound):
        at_25 = loudness(own_sound, max(1, round(frames * FPS / video.fps)))
        times = np.arange(frames) * float(FPS / video.fps)  # loudness counts in 25ths of a second
        level = np.interp(times, np.arange(len(at_25)), at_25).astype(np.float32)
    taken = np.zeros(frames, np.bool_)
    chosen = []
    for index in choose_speaker(tracks, level, (video.info.width_px, video.info.height_px)):
        track = tracks[index]
        span = slice(track.start_frame, track.start_frame + len(track))
        if not taken[span].any():
            taken[span] = True
            chosen.append(track)
    return sorted(chosen, key=lambda track: track.start_frame)


def _cut(
    video: Video, tracks: Sequence[Track], matrices: Sequence[F32], size: int
) -> list[tuple[list[bytes], list[float]]]:
    """Crops of each track as JPEG, and their sharpness [T], in one pass over the frames."""
    cut: list[tuple[list[bytes], list[float]]] = [([], []) for _ in tracks]
    first = 0
    for chunk in video.chunks():
        for track, matrix, (crops, sharp) in zip(tracks, matrices, cut, strict=True):
            a, b = max(track.start_frame, first), min(track.start_frame + len(track), first + len(chunk))
            if a < b:
                here = slice(a - track.start_frame, b - track.start_frame)
                faces = crop_faces(chunk[a - first : b - first], matrix[here], size)
                crops += [encode_jpeg(face, JPEG_QUALITY) for face in faces]
                sharp += sharpness(faces).tolist()
        first += len(chunk)
    return cut


def open_at_own_rate(path: Path) -> Video:
    """The file's pictures at its own frame rate. Raises ClipError, with the file's name."""
    try:
        info = probe(path)
        return open_video(path, info=info, fps=exact_rate(info))
    except ClipError as error:
        raise ClipError(error.stage, error.reason, f"{path}: {error.detail}") from error


def paste(frame: U8, generated: U8, matrix: F32, mask: Bool) -> U8:
    """`frame` [H,W,3] with the generated face [R,R,3] in the place of its crop, whose mask is [N,N]."""
    size = mask.shape[0]
    if generated.shape[0] != size:
        how = cv2.INTER_AREA if generated.shape[0] > size else cv2.INTER_CUBIC
        generated = np.asarray(cv2.resize(generated, (size, size), interpolation=how), np.uint8)
    return paste_back(frame, generated, matrix, mask)


def write_playable(path: Path, frames: Iterable[U8], rate: Fraction, sound: I16 | SoundFile | None) -> None:
    """Frames [H,W,3] and their sound as H.264 and AAC in MP4. Raises ClipError("render", "encode-error")."""
    try:
        write_video(path, frames, sound, PLAYABLE, rate)
    except OSError as error:
        raise ClipError("render", "encode-error", str(error), transient=True) from error
