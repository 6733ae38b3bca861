"""Whole splits of a prepared data set as videos: reconstruction, pairs lists, cross, silent; the folder that
is evaluated.

    results/<clip>.mp4                 reconstruction; <clip> is the clip's id without layout and split
    results/<clip>__<sound clip>.mp4   pairs: the picture of one clip, the sound of another
    results/<clip>.mp4                 silent: each clip with silence, to see what its own mouth gives away
    results/generate.json              what made them: checkpoint, sampling, pairs; a second run goes on from
    it

With the raw data at hand faces are pasted back into the full frames; else the videos show the face crop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from syncdiff.model.audio import audio_windows, clip_audio, speech_features
from syncdiff.model.data import resize_faces, resize_masks
from syncdiff.model.generate import GenerationJob, Model, generate, make_job, there_and_back
from syncdiff.model.video_faces import frames_in_order, paste, write_playable
from syncdiff.pipeline.config import ConfigError, differences
from syncdiff.pipeline.console import Meter
from syncdiff.pipeline.datasets.listing import source_path
from syncdiff.pipeline.media.read import fit_audio
from syncdiff.pipeline.records import F32, FPS, I16, SAMPLES_PER_FRAME, U8, Bool, ClipError
from syncdiff.pipeline.store.paths import read_json
from syncdiff.pipeline.store.read import ClipView, Dataset
from syncdiff.pipeline.store.write import write_atomic

Mode = Literal["reconstruction", "pairs", "cross", "silent"]


@dataclass(frozen=True)
class Pair:
    """Rows of the data set: whose picture, whose sound (None: silence); `name`: of the result, no suffix."""

    video: int
    sound: int | None
    name: str


@dataclass
class SplitOutcome:
    """What became of the pairs: videos generated now, there already, and left out with a reason."""

    generated: int = 0
    frames: int = 0
    existing: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class StoredFace:
    """A row's crops and masks at the network's resolution, in memory."""

    faces: U8
    mouth_masks: Bool

    def frames(self, indices: Sequence[int]) -> U8:
        return self.faces[list(indices)]

    def masks(self, indices: Sequence[int]) -> Bool:
        return self.mouth_masks[list(indices)]


def short_name(clip_id: str) -> str:
    """A clip's id without layout and split: its path in the data set."""
    return clip_id.split("/", 2)[-1]


def make_pairs(
    dataset: Dataset, mode: Mode, pairs_file: Path | None, seed: int = 0
) -> tuple[list[Pair], SplitOutcome]:
    """The pairs of a mode, and lines of a pairs list that name no clip of the data set.

    reconstruction: each clip with its own sound. cross: each with that of another clip of the split, by a
    rotation of a random order that the seed fixes. silent: each with silence. pairs: lines `<sound clip>
    <video clip>` as in Wav2Lip's lists, without suffix.
    """
    ids = dataset.table(["clip_id"]).column(0).to_pylist()
    names = [short_name(i) for i in ids]
    if len(set(names)) < len(names):
        names = ids  # the same path in several splits
    outcome = SplitOutcome()
    if mode == "pairs":
        if pairs_file is None:
            raise ConfigError("mode pairs needs --pairs, a list of lines '<sound clip> <video clip>'")
        return _read_pairs(pairs_file, {name: i for i, name in enumerate(names)}, outcome), outcome
    if mode == "reconstruction":
        return [Pair(i, i, name) for i, name in enumerate(names)], outcome
    if mode == "silent":
        return [Pair(i, None, name) for i, name in enumerate(names)], outcome
    if len(names) < 2:
        raise ConfigError("mode cross needs two clips or more")
    order = np.random.default_rng(seed).permutation(len(names))
    sound = {int(a): int(b) for a, b in zip(order, np.roll(order, 1), strict=True)}
    return [Pair(i, sound[i], _joint(name, names[sound[i]])) for i, name in enumerate(names)], outcome


def _joint(video: str, sound: str) -> str:
    return f"{video}__{sound.replace('/', '_')}"


def _read_pairs(path: Path, rows: dict[str, int], outcome: SplitOutcome) -> list[Pair]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--pairs: {path}: {error}") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        if not (words := line.split()):
            continue
        if len(words) != 2:
            raise ConfigError(f"{path}:{number}: expected '<sound clip> <video clip>', got {line!r}")
        sound, video = (word.removesuffix(".mp4") for word in words)
        missing = [name for name in (sound, video) if name not in rows]
        if missing:
            reason = f"no clip {' and no clip '.join(missing)} in the data set"
            outcome.left_out.append((f"{path.name}:{number}", reason))
        else:
            pairs.append(Pair(rows[video], rows[sound], video if video == sound else _joint(video, sound)))
    return pairs


def generate_results(
    model: Model, dataset: Dataset, pairs: list[Pair], outcome: SplitOutcome, out: Path, raw: Path | None,
    batch: int, settings: dict[str, Any], say: Callable[[str], None], shown: Meter | None = None,
    avhubert: Path | None = None,
) -> SplitOutcome:  # fmt: skip
    """Make the videos that are not there yet; what cannot be made is in the outcome, with its reason.

    `settings` is what all videos of the folder have in common; `shown` counts the pairs as they are done.
    `avhubert` is the checkpoint that AV-HuBERT's features of silence are made with.
    """
    check_folder(out, settings)
    for part in ("mask", "align"):
        stored, trained = dataset.manifest["config"].get(part), model.preparation.get(part)
        if stored != trained:
            say(
                f"the data set's {part} settings {stored} are not those the model was trained with, {trained}"
            )
    todo = {pair.name: pair for pair in pairs if not video_path(out, pair).is_file()}
    outcome.existing += len(pairs) - len(todo)
    silent = [dataset[pair.video].num_frames for pair in todo.values() if pair.sound is None]
    # Of the longest; each clip takes its beginning. Filter banks of silence are the same at each step.
    silence = features_of_silence(model, max(silent), avhubert) if silent else None
    for job in generate(model, _jobs(model, dataset, todo.values(), outcome, silence), batch):
        pair = todo[job.name]
        try:
            write_result(dataset, pair, job, video_path(out, pair), raw)
        except ClipError as error:
            outcome.left_out.append((job.name, str(error)))
            continue
        outcome.generated += 1
        outcome.frames += len(job.order)
        if shown is not None:
            shown.show(outcome.existing + outcome.generated, outcome.frames, len(outcome.left_out))
    return outcome


def video_path(out: Path, pair: Pair) -> Path:
    """Where a pair's video is written."""
    return out / f"{pair.name}.mp4"


def check_folder(out: Path, settings: dict[str, Any]) -> None:
    """Record what the folder's videos are made with; refuse a folder whose videos were made otherwise."""
    record = out / "generate.json"
    if not record.is_file():
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(record, (json.dumps(settings, indent=1) + "\n").encode())
        return
    before = read_json(record)
    changed = differences({key: before.get(key) for key in settings}, settings)
    if changed:
        listed = "\n  ".join(changed)
        raise ConfigError(
            f"{out} holds videos made otherwise:\n  {listed}\nGive another --out, or remove it."
        )


def features_of_silence(model: Model, frames: int, avhubert: Path | None) -> F32:
    """What the model hears of silence of so many frames, [M,D]. Raises ConfigError as `speech_features`."""
    return speech_features(model.spec, model.extractor, silence_of(frames), avhubert, model.device.type)


def silence_of(frames: int) -> I16:
    """int16 [frames * 640], all zero."""
    return np.zeros(frames * SAMPLES_PER_FRAME, np.int16)


def _jobs(
    model: Model, dataset: Dataset, pairs: Iterable[Pair], outcome: SplitOutcome, silence: F32 | None
) -> Iterator[GenerationJob]:
    for pair in pairs:
        sound = silence if pair.sound is None else dataset[pair.sound]
        assert sound is not None
        try:
            yield row_job(model, pair.name, dataset[pair.video], sound)
        except (ClipError, ConfigError) as error:
            outcome.left_out.append((pair.name, str(error)))


def row_job(model: Model, name: str, video: ClipView, sound: ClipView | F32) -> GenerationJob:
    """The picture of one row with the sound of another (or its own), as long as the sound.

    sound: or the features [M,D] of a sound that lasts at least as long as the picture; then as long as that.
    """
    if video.num_frames < 2:
        raise ClipError("generate", "single-frame", "a clip of one frame has no other to show who speaks")
    if isinstance(sound, np.ndarray):
        heard, frames = sound, video.num_frames
    else:
        heard, frames = clip_audio(sound, model.spec), sound.num_frames
    size = model.config.model.resolution
    masks = video.masks(list(range(min(video.num_frames, frames))))
    faces = StoredFace(resize_faces(video.frames(), size), resize_masks(masks, size))
    windows = audio_windows(
        heard, model.spec, model.config.model.audio.window, np.arange(frames, dtype=float)
    )
    order = there_and_back(video.num_frames, frames)
    ranked, pose = video.column("identity_index"), video.column("head_pose_deg")
    return make_job(model, name, faces, order, ranked, pose, windows)


def write_result(dataset: Dataset, pair: Pair, job: GenerationJob, path: Path, raw: Path | None) -> None:
    """Paste a finished job into its source's frames, or its crops, and write it with the driving sound."""
    video = dataset[pair.video]
    masks = video.masks()
    if raw is None:
        matrices = np.tile(np.eye(2, 3, dtype=np.float32), (video.num_frames, 1, 1))
        crops = video.frames()
        frames: Iterator[U8] = (crops[i] for i in job.order)
    else:
        matrices = video.column("crop_matrix")
        start = int(video.value("start_frame"))
        frames = frames_in_order(source_path(raw, video.value("source")), Fraction(FPS), job.order + start)
    pasted = (
        paste(frame, face, matrices[i], masks[i])
        for frame, face, i in zip(frames, job.generated, job.order, strict=True)
    )
    pcm = silence_of(len(job.order)) if pair.sound is None else dataset[pair.sound].audio()
    pcm = None if pcm is None else fit_audio(pcm, len(job.order))[0]
    write_playable(path, pasted, Fraction(FPS), pcm)
