"""One clip through all stages, top to bottom: decode, track, choose, cut, align, mask, select, extract.

The pictures are decoded twice where they do not fit into one chunk: once to find the faces, once to cut them
out, since only after the last frame is it known which face speaks and how its track is smoothed. Memory is
bounded by a chunk of frames and by the JPEGs of one row, never by the video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import numpy as np

from syncdiff.pipeline.faces.align import crop_faces, crop_matrices, crop_mouths, mouth_matrices, to_crop
from syncdiff.pipeline.faces.backend import FaceBackend
from syncdiff.pipeline.faces.head_pose import head_pose_deg, interocular_px, mouth_opening, sharpness
from syncdiff.pipeline.faces.mask import mouth_masks
from syncdiff.pipeline.faces.reference_frames import select
from syncdiff.pipeline.faces.speaker import choose_speaker
from syncdiff.pipeline.faces.track import TrackResult, track_faces
from syncdiff.pipeline.features.av_sync import av_correlation, loudness, quiet_cuts
from syncdiff.pipeline.features.builtin import extract_features
from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.media.flac import encode_flac
from syncdiff.pipeline.media.images import encode_grey, encode_jpeg, encode_mask
from syncdiff.pipeline.media.probe import MediaInfo, probe
from syncdiff.pipeline.media.read import Video, fit_audio, open_video, read_audio
from syncdiff.pipeline.prep_config import PrepConfig
from syncdiff.pipeline.records import F32, FPS, I16, SAMPLES_PER_FRAME, U8, Clip, ClipError, Row, Track, Word

OnProgress: TypeAlias = Callable[[int], None]


@dataclass(frozen=True)
class Part:
    """A stretch of one face that becomes one row. `face` counts the faces of a shot, best first."""

    track: Track
    face: int
    num_faces: int

    @property
    def stop_frame(self) -> int:
        return self.track.start_frame + len(self.track)


@dataclass
class Cutting:
    """A part while its frames come by: what has been cut out so far."""

    part: Part
    face_matrices: F32
    mouth_matrices: F32
    frames: list[bytes] = field(default_factory=list)
    mouths: list[bytes] = field(default_factory=list)
    sharpness: list[F32] = field(default_factory=list)


def prepare_clip(
    clip: Clip, config: PrepConfig, backend: FaceBackend, on_progress: OnProgress = lambda frames: None
) -> Iterator[Row]:
    """Yield the rows of one clip. `on_progress` is told how many frames each chunk of work finished.

    Raises ClipError where the clip gives no row; nothing of it has been yielded then.
    """
    info = probe(clip.path)
    video = open_video(clip.path, info=info)
    found = track_faces(_watched(video.chunks(), lambda _: on_progress(0)), backend, config.track)
    origin = Origin(clip, info, video.damage, _hash(clip), _read_sound(clip, info, found.num_frames))
    parts = choose_parts(found, origin.sound, info, config)
    for cutting in cut_parts(video, parts, config, on_progress):
        yield finish_row(origin, cutting, config)


def _hash(clip: Clip) -> str:
    try:
        return sha256_file(clip.path)
    except OSError as error:  # it opened a moment ago: a lost share or a failing disk
        raise ClipError("media", "read-error", f"reading the file failed: {error}", transient=True) from error


def _watched(chunks: Iterator[U8], on_progress: OnProgress) -> Iterator[U8]:
    for chunk in chunks:
        yield chunk
        on_progress(len(chunk))


@dataclass(frozen=True)
class Sound:
    """The clip's sound, exactly T*640 samples, and how many zeros were appended for that."""

    pcm: I16
    padded_samples: int


def _read_sound(clip: Clip, info: MediaInfo, num_frames: int) -> Sound | None:
    pcm = read_audio(clip.path, info=info)
    return None if pcm is None else Sound(*fit_audio(pcm, num_frames))


def choose_parts(found: TrackResult, sound: Sound | None, info: MediaInfo, config: PrepConfig) -> list[Part]:
    """Of the faces seen at the same time the one that speaks, or all; cut at quiet moments where too long."""
    size = (info.width_px, info.height_px)
    longest = round(config.max_clip_s * FPS)
    level = None if sound is None else loudness(sound.pcm, found.num_frames)
    parts = []
    for together in _simultaneous(found.tracks):
        order = choose_speaker(together, level, size)
        for face, index in enumerate(order if config.all_faces else order[:1]):
            track = together[index]
            cuts = quiet_cuts(_stretch(sound or _silence(found), track), len(track), longest)
            parts += [Part(track.part(a, b), face, len(together)) for a, b in cuts]
    return sorted(parts, key=lambda part: (part.track.start_frame, part.face))


def _simultaneous(tracks: Sequence[Track]) -> list[list[Track]]:
    """Group tracks that overlap in time, directly or through others."""
    groups: list[list[Track]] = []
    end = 0
    for track in sorted(tracks, key=lambda t: (t.start_frame, len(t))):
        if groups and track.start_frame < end:
            groups[-1].append(track)
        else:
            groups.append([track])
        end = max(end, track.start_frame + len(track))
    return groups


def _silence(found: TrackResult) -> Sound:
    return Sound(np.zeros(found.num_frames * SAMPLES_PER_FRAME, np.int16), 0)


def _stretch(sound: Sound, track: Track) -> I16:
    """The sound of a track's frames, int16 [T*640]."""
    start = track.start_frame * SAMPLES_PER_FRAME
    return sound.pcm[start : start + len(track) * SAMPLES_PER_FRAME]


def cut_parts(
    video: Video, parts: Sequence[Part], config: PrepConfig, on_progress: OnProgress
) -> Iterator[Cutting]:
    """Go through the frames once and yield each part when its last frame has been cut out."""
    waiting = list(parts)
    active: list[Cutting] = []
    first = 0
    for chunk in _watched(video.chunks(), on_progress):
        last = first + len(chunk)
        while waiting and waiting[0].track.start_frame < last:
            active.append(_begin(waiting.pop(0), config))
        for cutting in active:
            _cut(cutting, chunk, first, config)
        done = [c for c in active if c.part.stop_frame <= last]
        active = [c for c in active if c.part.stop_frame > last]
        yield from done
        first = last
        if not waiting and not active:
            return


def _begin(part: Part, config: PrepConfig) -> Cutting:
    landmarks = part.track.landmarks_px
    return Cutting(
        part, crop_matrices(landmarks, config.face_size_px, config.align), mouth_matrices(landmarks)
    )


def _cut(cutting: Cutting, chunk: U8, first: int, config: PrepConfig) -> None:
    """Cut face and mouth out of those frames of a chunk that belong to the part."""
    start = cutting.part.track.start_frame
    a, b = max(start, first), min(cutting.part.stop_frame, first + len(chunk))
    frames, rows = chunk[a - first : b - first], slice(a - start, b - start)
    faces = crop_faces(frames, cutting.face_matrices[rows], config.face_size_px)
    cutting.frames += [encode_jpeg(face, config.jpeg_quality) for face in faces]
    cutting.sharpness.append(sharpness(faces))
    if config.mouth_rois:
        mouths = crop_mouths(frames, cutting.mouth_matrices[rows])
        cutting.mouths += [encode_grey(mouth, config.jpeg_quality) for mouth in mouths]


@dataclass(frozen=True)
class Origin:
    """What all rows of a clip share."""

    clip: Clip
    info: MediaInfo
    damage: str | None
    sha256: str
    sound: Sound | None


def finish_row(origin: Origin, cutting: Cutting, config: PrepConfig) -> Row:
    """Masks, pose frames, features and quality of a part whose frames are cut."""
    track = cutting.part.track
    landmarks = track.landmarks_px
    opening = mouth_opening(landmarks)
    detail = np.concatenate(cutting.sharpness)
    pose = select(head_pose_deg(landmarks), opening, detail, config.pose, usable=track.detected)
    masks = mouth_masks(to_crop(landmarks, cutting.face_matrices), config.face_size_px, config.mask)
    pcm = None if origin.sound is None else _stretch(origin.sound, track)
    lag, correlation = (None, None) if pcm is None else av_correlation(opening, loudness(pcm, len(track)))
    columns = {
        **_identity_columns(origin, cutting.part),
        **_speech_columns(origin, cutting.part, pcm),
        "face_size_px": config.face_size_px,
        "frames": cutting.frames,
        "mouth_masks": [encode_mask(mask) for mask in masks],
        "mouth_rois": cutting.mouths or None,
        "boxes_px": track.boxes_px,
        "landmarks_px": landmarks,
        "detection_scores": track.scores,
        "detected": track.detected,
        "crop_matrix": cutting.face_matrices,
        "head_pose_deg": pose.head_pose_deg,
        "mouth_opening": opening,
        "pose_index": pose.pose_index,
        "identity_index": pose.identity_index,
        "interocular_px": float(np.median(interocular_px(landmarks))),
        "sharpness": float(np.median(detail)),
        "coverage": float(track.detected.mean()),
        "num_faces": cutting.part.num_faces,
        "av_lag_frames": lag,
        "av_correlation": correlation,
    }
    return Row(columns, extract_features(pcm, len(track), config.features))


def _identity_columns(origin: Origin, part: Part) -> dict[str, Any]:
    clip, info, start = origin.clip, origin.info, part.track.start_frame
    return {
        "clip_id": clip.id + (f"#{part.face}" if part.face else "") + (f"@{start}" if start else ""),
        "start_frame": start,
        "split": clip.split,
        "speaker_id": clip.speaker_id,
        "source": clip.source,
        "source_sha256": origin.sha256,
        "source_fps": info.source_fps,
        "source_width_px": info.width_px,
        "source_height_px": info.height_px,
        "source_damage": origin.damage,
        "fps": float(FPS),
        "num_frames": len(part.track),
    }


def _speech_columns(origin: Origin, part: Part, pcm: I16 | None) -> dict[str, Any]:
    """Sound and words of a part. Words count from its start; one across its edge belongs to neither side."""
    start, stop = part.track.start_frame / FPS, part.stop_frame / FPS
    known = origin.clip.words
    words = None if known is None else [w for w in known if w.start_s >= start and w.end_s <= stop]
    whole = words is not None and known is not None and len(words) == len(known)
    only = origin.sound is None or part.stop_frame * SAMPLES_PER_FRAME >= len(origin.sound.pcm)
    if whole or (start == 0 and only):
        transcript = origin.clip.transcript
    else:
        transcript = None if words is None else " ".join(w.word for w in words)
    shifted = None if words is None else [Word(w.word, w.start_s - start, w.end_s - start) for w in words]
    padding = None
    if origin.sound is not None:
        sounding = len(origin.sound.pcm) - max(0, origin.sound.padded_samples)
        padding = min(
            max(0, part.stop_frame * SAMPLES_PER_FRAME - sounding), len(part.track) * SAMPLES_PER_FRAME
        )
    return {
        "transcript": transcript,
        "words": None if shifted is None else [asdict(word) for word in shifted],
        "audio_flac": None if pcm is None else encode_flac(pcm),
        "audio_padded_samples": padding,
    }
