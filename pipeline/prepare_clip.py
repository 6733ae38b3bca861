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
class Sound:
    """The clip's sound, exactly T*640 samples, and how many zeros were appended for that."""

    pcm: I16
    padded_samples: int

    def of(self, track: Track) -> I16:
        """The sound of a track's frames, int16 [T*640]."""
        start = track.start_frame * SAMPLES_PER_FRAME
        return self.pcm[start : start + len(track) * SAMPLES_PER_FRAME]


@dataclass(frozen=True)
class Origin:
    """What all rows of a clip share. damage: what was wrong with the file and could be lived with."""

    clip: Clip
    info: MediaInfo
    damage: str | None
    sha256: str
    sound: Sound | None


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
    # Looking for faces counts as a sign of life only: a frame is finished when it has been cut.
    tracked = track_faces(_watched(video.chunks(), lambda _: on_progress(0)), backend, config.track)
    try:
        sha256 = sha256_file(clip.path)
    except OSError as error:  # it opened a moment ago: a lost share or a failing disk
        raise ClipError("media", "read-error", f"reading the file failed: {error}", transient=True) from error
    pcm = read_audio(clip.path, info=info)
    sound = None if pcm is None else Sound(*fit_audio(pcm, tracked.num_frames))
    parts = choose_parts(tracked, sound, info, config)
    origin = Origin(clip, info, video.damage, sha256, sound)
    for cutting in cut_parts(video, parts, config, on_progress):
        yield finish_row(origin, cutting, config)


def _watched(chunks: Iterator[U8], on_progress: OnProgress) -> Iterator[U8]:
    for chunk in chunks:
        yield chunk
        on_progress(len(chunk))


def choose_parts(
    tracked: TrackResult, sound: Sound | None, info: MediaInfo, config: PrepConfig
) -> list[Part]:
    """Of the faces seen at the same time the one that speaks, or all; cut at quiet moments where too long."""
    size = (info.width_px, info.height_px)
    longest = round(config.max_clip_s * FPS)
    level = None if sound is None else loudness(sound.pcm, tracked.num_frames)
    # A silent clip has no quiet moments to prefer: with zeros it is cut as late as is allowed.
    audible = sound or Sound(np.zeros(tracked.num_frames * SAMPLES_PER_FRAME, np.int16), 0)
    parts = []
    for together in _simultaneous(tracked.tracks):
        order = choose_speaker(together, level, size)
        for face, index in enumerate(order if config.all_faces else order[:1]):
            track = together[index]
            cuts = quiet_cuts(audible.of(track), len(track), longest)
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
            part = waiting.pop(0)
            landmarks = part.track.landmarks_px
            faces = crop_matrices(landmarks, config.face_size_px, config.align)
            active.append(Cutting(part, faces, mouth_matrices(landmarks)))
        for cutting in active:
            _cut(cutting, chunk, first, config)
        yield from (c for c in active if c.part.stop_frame <= last)
        active = [c for c in active if c.part.stop_frame > last]
        first = last
        if not waiting and not active:
            return  # nobody is seen in the rest


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


def finish_row(origin: Origin, cutting: Cutting, config: PrepConfig) -> Row:
    """Masks, pose frames, features and quality of a part whose frames are cut."""
    clip, info, part = origin.clip, origin.info, cutting.part
    track, start = part.track, part.track.start_frame
    landmarks = track.landmarks_px
    opening = mouth_opening(landmarks)
    detail = np.concatenate(cutting.sharpness)
    pose = select(head_pose_deg(landmarks), opening, detail, config.pose, usable=track.detected)
    masks = mouth_masks(to_crop(landmarks, cutting.face_matrices), config.face_size_px, config.mask)
    pcm = None if origin.sound is None else origin.sound.of(track)
    lag, correlation = (None, None) if pcm is None else av_correlation(opening, loudness(pcm, len(track)))
    columns = {
        # `#` tells the faces of a shot apart, `@` the parts of a clip by their first frame
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
        "num_frames": len(track),
        **_speech_columns(origin, part, pcm),
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
        "num_faces": part.num_faces,
        "av_lag_frames": lag,
        "av_correlation": correlation,
    }
    return Row(columns, extract_features(pcm, len(track), config.features))


def _speech_columns(origin: Origin, part: Part, pcm: I16 | None) -> dict[str, Any]:
    """Sound and words of a part. Words count from its start; one across its edge belongs to neither side."""
    first, stop = part.track.start_frame * SAMPLES_PER_FRAME, part.stop_frame * SAMPLES_PER_FRAME
    start_s, stop_s = part.track.start_frame / FPS, part.stop_frame / FPS
    sound, spoken = origin.sound, origin.clip.words
    within = None if spoken is None else [w for w in spoken if w.start_s >= start_s and w.end_s <= stop_s]
    # The clip's own transcript, with its punctuation, where the part has all of it.
    whole_clip = first == 0 and (sound is None or stop >= len(sound.pcm))
    if whole_clip or (within is not None and spoken is not None and len(within) == len(spoken)):
        transcript = origin.clip.transcript
    else:
        transcript = None if within is None else " ".join(w.word for w in within)
    words = None if within is None else [Word(w.word, w.start_s - start_s, w.end_s - start_s) for w in within]
    padding = None
    if sound is not None:  # zeros were appended at the clip's end; this part has those that lie in it
        sounding = len(sound.pcm) - max(0, sound.padded_samples)
        padding = min(max(0, stop - sounding), stop - first)
    return {
        "transcript": transcript,
        "words": None if words is None else [asdict(word) for word in words],
        "audio_flac": None if pcm is None else encode_flac(pcm),
        "audio_padded_samples": padding,
    }
