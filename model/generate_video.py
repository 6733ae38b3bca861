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

from syncdiff.model.audio import Hearing, audio_windows, read_speech, speech_features
from syncdiff.model.generate import Index, Job, Model, generate, make_job, there_and_back
from syncdiff.model.render import paste, write_playable
from syncdiff.model.video_faces import TrackedFace, find_faces, frames_in_order, open_at_own_rate
from syncdiff.pipeline.faces.track import make_backend
from syncdiff.pipeline.media.probe import probe
from syncdiff.pipeline.media.read import read_audio
from syncdiff.pipeline.media.write import SoundFile
from syncdiff.pipeline.records import F32, FPS, SAMPLE_RATE_HZ, U8, ClipError


@dataclass(frozen=True)
class Dubbed:
    """What was written: frames, of which so many have a redrawn face, at `rate` a second."""

    path: Path
    frames: int
    redrawn: int
    rate: Fraction


def dub(
    model: Model, video_path: Path, sound_path: Path | None, out: Path, batch: int,
    say: Callable[[str], None] = print, avhubert: Path | None = None,
) -> Dubbed:  # fmt: skip
    """Redraw the mouth in a video so that it speaks a sound (without one, the video's own).

    Size, rate and everything outside the mouth masks stay. Raises ClipError where there is no face, no sound
    or no speech, or a file cannot be read; ConfigError where the model's features cannot be made of a sound
    file, or not without `avhubert`, the checkpoint that made those it was trained with.
    """
    speech = read_speech(sound_path or video_path)
    values = speech_features(Hearing(model.spec, model.extractor, model.device.type), speech, avhubert)
    video = open_at_own_rate(video_path)
    own = read_audio(video_path, info=video.info)
    faces, num_frames = find_faces(
        video, own, make_backend("dlib"), model.config.model.resolution, model.preparation
    )
    frames = max(1, round(Fraction(len(speech), SAMPLE_RATE_HZ) * video.fps))
    order = there_and_back(num_frames, frames)
    if frames != num_frames:
        how = "cut" if frames < num_frames else "run backwards and forwards"
        say(f"the speech lasts {frames} frames, the video {num_frames}: the video is {how}")
    places = [
        place
        for k, face in enumerate(faces)
        for place in job_places(model, face, k, order, values, video.fps)
    ]
    made: dict[int, tuple[TrackedFace, U8]] = {}
    for job in generate(model, (job for job, _, _ in places), batch):
        face, shown = next((face, shown) for other, face, shown in places if other is job)
        made |= {int(i): (face, picture) for i, picture in zip(shown, job.made, strict=True)}
        say(f"{len(made)}/{frames} frames")
    if not made:
        raise ClipError(
            "generate", "no-face", "no face is seen in the part of the video that the speech covers"
        )
    redrawn = render(frames_in_order(video_path, video.fps, order), order, made)
    sound = sound_path or video_path
    heard = SoundFile(sound, -probe(sound).sound_offset_s, frames / video.fps)
    write_playable(out, redrawn, video.fps, heard)
    return Dubbed(out, frames, len(made), video.fps)


def job_places(
    model: Model, face: TrackedFace, number: int, order: Index, values: F32, rate: Fraction
) -> Iterator[tuple[Job, TrackedFace, Index]]:
    """A job for each run of output frames that show a face: (job, face, the output frames)."""
    shown = np.flatnonzero((order >= face.span.start) & (order < face.span.stop))
    for run in np.split(shown, np.flatnonzero(np.diff(shown) > 1) + 1):
        if len(run):
            times = run * float(FPS / rate)
            windows = audio_windows(values, model.spec, model.config.model.audio.window, times)
            inside = order[run] - face.span.start
            job = make_job(
                model, f"face {number}", face, inside, face.identity_index, face.head_pose_deg, windows
            )
            yield job, face, run


def render(frames: Iterator[U8], order: Index, made: dict[int, tuple[TrackedFace, U8]]) -> Iterator[U8]:
    """Output frames with the redrawn faces in their places."""
    for number, (frame, source) in enumerate(zip(frames, order, strict=True)):
        if number not in made:
            yield frame
            continue
        face, picture = made[number]
        inside = int(source) - face.span.start
        yield paste(frame, picture, face.crop_matrix[inside], face.masks([inside])[0])
