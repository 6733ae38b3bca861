"""One video, one sound: the face in the video speaks what is heard.

The result lasts as long as the speech. Where the video is longer it is cut; where it is shorter it runs
backwards from its end and forwards again. Frames without a face, and faces that do not speak, stay as they
are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from syncdiff.model.audio import audio_windows, read_speech, speech_features
from syncdiff.model.generate import GenerationJob, Index, Model, generate, make_job, there_and_back
from syncdiff.model.video_faces import (
    TrackedFace,
    find_faces,
    frames_in_order,
    open_at_own_rate,
    paste,
    write_playable,
)
from syncdiff.pipeline.faces.track import make_backend
from syncdiff.pipeline.media.probe import probe
from syncdiff.pipeline.media.read import Video, read_audio
from syncdiff.pipeline.media.write import SoundFile
from syncdiff.pipeline.records import F32, FPS, I16, SAMPLE_RATE_HZ, U8, ClipError


@dataclass(frozen=True)
class Dubbed:
    """What was written: frames, of which so many have a redrawn face, at `rate` a second."""

    path: Path
    frames: int
    redrawn: int
    rate: Fraction


def dub(
    model: Model, video_path: Path, sound_path: Path | None, out: Path, batch: int,
    say: Callable[[str], None] = print, avhubert: Path | None = None, *, silent: bool = False,
) -> Dubbed:  # fmt: skip
    """Redraw the mouth in a video so that it speaks a sound (without one, the video's own).

    silent: drive it with silence as long as the video; the result has a silent sound track.
    Size, rate and everything outside the mouth masks stay. Raises ClipError where there is no face, no sound
    or no speech, or a file cannot be read; ConfigError where the model's features cannot be made of a sound
    file, or not without `avhubert`, the checkpoint that made those it was trained with.
    """
    video = open_at_own_rate(video_path)
    speech = _silence_like(video) if silent else read_speech(sound_path or video_path)
    values = speech_features(model.spec, model.extractor, speech, avhubert, model.device.type)
    own_sound = read_audio(video_path, info=video.info)
    faces, num_frames = find_faces(
        video, own_sound, make_backend("dlib"), model.config.model.resolution, model.preparation
    )
    frames = max(1, round(Fraction(len(speech), SAMPLE_RATE_HZ) * video.fps))
    order = there_and_back(num_frames, frames)
    if frames != num_frames:
        how = "cut" if frames < num_frames else "run backwards and forwards"
        say(f"the speech lasts {frames} frames, the video {num_frames}: the video is {how}")
    planned = [
        run for k, face in enumerate(faces) for run in plan_face(model, face, k, order, values, video.fps)
    ]
    redrawn: dict[int, tuple[TrackedFace, U8]] = {}  # by output frame
    for job in generate(model, (run.job for run in planned), batch):
        run = next(run for run in planned if run.job is job)
        redrawn |= {int(i): (run.face, face) for i, face in zip(run.frames, job.generated, strict=True)}
        say(f"{len(redrawn)}/{frames} frames")
    if not redrawn:
        raise ClipError(
            "generate", "no-face", "no face is seen in the part of the video that the speech covers"
        )

    def pictures() -> Iterator[U8]:
        """Output frames, the redrawn faces in their places."""
        frames = frames_in_order(video_path, video.fps, order)
        for number, (frame, source) in enumerate(zip(frames, order, strict=True)):
            if number in redrawn:
                face, picture = redrawn[number]
                inside = int(source) - face.span.start
                frame = paste(frame, picture, face.crop_matrix[inside], face.masks([inside])[0])
            yield frame

    sound = sound_path or video_path
    heard = speech if silent else SoundFile(sound, -probe(sound).sound_offset_s, frames / video.fps)
    write_playable(out, pictures(), video.fps, heard)
    return Dubbed(out, frames, len(redrawn), video.fps)


def _silence_like(video: Video) -> I16:
    """Silence at 16 kHz that lasts as long as a video, whose frames are counted by decoding them."""
    frames = sum(len(chunk) for chunk in video.chunks())
    return np.zeros(round(frames * SAMPLE_RATE_HZ / video.fps), np.int16)


@dataclass(frozen=True)
class FaceRun:
    """Consecutive output frames [n] that show a face, and the job that generates them."""

    job: GenerationJob
    face: TrackedFace
    frames: Index


def plan_face(
    model: Model, face: TrackedFace, number: int, order: Index, values: F32, rate: Fraction
) -> Iterator[FaceRun]:
    """A job for each run of output frames that show a face; `order` says which source frame each shows."""
    shown = np.flatnonzero((order >= face.span.start) & (order < face.span.stop))
    for run in np.split(shown, np.flatnonzero(np.diff(shown) > 1) + 1):
        if len(run):
            times = run * float(FPS / rate)  # features count in 25ths of a second
            windows = audio_windows(values, model.spec, model.config.model.audio.window, times)
            inside = order[run] - face.span.start
            job = make_job(
                model, f"face {number}", face, inside, face.identity_index, face.head_pose_deg, windows
            )
            yield FaceRun(job, face, run)
