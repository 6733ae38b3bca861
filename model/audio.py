"""What the network hears: features of a data set or of a sound file, in windows around each frame.

`audio_spec` finds the feature that a configuration asks for, `clip_audio` reads it from the shards,
`read_speech` and `speech_features` make the same of a sound file, `audio_windows` cuts the windows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syncdiff.model.config import AudioConfig
from syncdiff.pipeline.avhubert.extractor import load_avhubert
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.features.av_sync import loudness, quiet_cuts
from syncdiff.pipeline.features.builtin import SPECS
from syncdiff.pipeline.features.extractor import ExtractorInput
from syncdiff.pipeline.features.filterbanks import logfbank
from syncdiff.pipeline.media.read import read_audio
from syncdiff.pipeline.records import (
    F32,
    FPS,
    I16,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_FRAME,
    CheckpointError,
    ClipError,
)
from syncdiff.pipeline.store.read import ClipView, Dataset

HUBERT_INPUT_WIDTH = 104  # four stacked steps of 26 log filter banks


@dataclass(frozen=True)
class AudioSpec:
    """How the sound of a frame is cut: feature `id`, its `width` D and rate, and `steps` L per window.

    `id` "waveform" stands for sound read from the shard, as AV-HuBERT's input, for fine-tuning.
    """

    id: str
    width: int
    rate_hz: float
    steps: int
    untrained: bool = False  # made by a network that was never trained


def audio_spec(config: AudioConfig, dataset: Dataset) -> AudioSpec:
    """Find the feature that a configuration asks for; raise ConfigError where the store lacks it."""
    if config.finetune_layers:
        steps = 2 * round(config.context_s * FPS) + 1
        if steps < config.window:
            raise ConfigError(f"audio.context_s: {config.context_s} s are shorter than the window")
        return AudioSpec("waveform", HUBERT_INPUT_WIDTH, float(FPS), steps)
    extractors = dataset.extractors
    matching = [e for e in extractors if e == config.features] or [
        e for e in extractors if e.startswith(config.features)
    ]
    if len(matching) > 1:
        raise ConfigError(
            f"audio.features: {config.features!r} may be any of {', '.join(matching)}; name one"
        )
    if not matching:
        advice = "choose one of these with --set model.audio.features=ID"
        if config.features.startswith("avhubert"):
            advice = (
                f"add them with syncdiff-prep features avhubert {dataset.root} --checkpoint FILE, or {advice}"
            )
        raise ConfigError(
            f"{dataset.root}: no features {config.features!r}; it has "
            f"{', '.join(extractors) or 'none'}; {advice}"
        )
    about = extractors[matching[0]]
    rate_hz = float(about["rate_hz"])
    steps = math.ceil(config.window * rate_hz / FPS - 1e-9)
    return AudioSpec(matching[0], int(about["width"]), rate_hz, steps, bool(about.get("untrained", False)))


def audio_windows(values: F32, spec: AudioSpec, window: int, frames: NDArray[np.floating]) -> F32:
    """Cut windows of `window` video frames around each of `frames` (in 25ths of a second): [M,D] to [n,L,D].

    A window begins floor(rate / 25 · (frame - window // 2)) steps into the features; for 5 frames of an 80 Hz
    mel spectrogram these are Wav2Lip's 16 steps. Beyond the clip its first or last step is repeated, except
    for waveform input, whose missing steps are zero: AV-HuBERT leaves those out.
    """
    reach = spec.steps // 2 if spec.id == "waveform" else window // 2
    first = np.floor((np.asarray(frames, np.float64) - reach) * spec.rate_hz / FPS + 1e-6).astype(np.int64)
    index = first[:, None] + np.arange(spec.steps)
    cut = np.asarray(values[np.clip(index, 0, len(values) - 1)], np.float32)
    if spec.id == "waveform":
        cut[(index < 0) | (index >= len(values))] = 0
    return cut


def clip_audio(clip: ClipView, spec: AudioSpec) -> F32:
    """The feature steps [M,D] of a whole clip. Raises ConfigError where it has no sound."""
    if spec.id == "waveform":
        pcm = clip.audio()
        values: Any = None if pcm is None else waveform_input(pcm)
    else:
        values = clip.features(spec.id)
    if values is None or len(values) == 0:
        raise ConfigError(f"{clip.clip_id}: has no sound to speak by")
    return np.asarray(values, np.float32)


def waveform_input(pcm: I16) -> F32:
    """AV-HuBERT's input [T,104] for int16 sound of T frames, one step a frame."""
    return logfbank(pcm)[: max(1, len(pcm) * FPS // SAMPLE_RATE_HZ)]


def feature_statistics(
    dataset: Dataset, spec: AudioSpec, rows: list[int], clips: int = 64
) -> tuple[F32, F32]:
    """Mean and standard deviation [D] of the sound over up to `clips` rows spread evenly over the split."""
    picked = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, clips).round().astype(int))]
    values = np.concatenate([clip_audio(dataset[row], spec) for row in picked]).astype(np.float64)
    return values.mean(axis=0).astype(np.float32), values.std(axis=0).astype(np.float32)


# In the band of speech formants; quiet speech reaches -45 dB, a recorder's noise about -75.
SILENCE_DB = -60.0
# As `syncdiff-prep` cuts rows by default: AV-HuBERT's attention grows with the square of the length.
LONGEST_FRAMES = 20 * FPS


def read_speech(path: Path) -> I16:
    """Sound int16 [S] at 16 kHz.

    Raises ClipError, with the file's name, as `read_audio` does; no-sound; no-speech where it is silent
    throughout.
    """
    try:
        pcm = read_audio(path)
    except ClipError as error:
        raise ClipError(error.stage, error.reason, f"{path}: {error.detail}") from error
    if pcm is None or len(pcm) == 0:
        raise ClipError("media", "no-sound", f"{path}: the file holds no sound")
    loudest = float(loudness(pcm, max(1, len(pcm) // SAMPLES_PER_FRAME)).max())
    if loudest < SILENCE_DB:
        detail = (
            f"{path}: nothing in it is louder than {loudest:.0f} dB; there is no speech to follow. "
            "To drive with silence on purpose: --mode silent"
        )
        raise ClipError("generate", "no-speech", detail)
    return pcm


def speech_features(
    spec: AudioSpec, extractor: dict[str, Any], pcm: I16, avhubert: Path | None = None, device: str = "cpu"
) -> F32:
    """The features [M,D] that a model hears (`spec`, and its extractor.json) of sound int16 [S] at 16 kHz.

    `avhubert` is the checkpoint, where one is needed. Raises ConfigError where the features cannot be made of
    a sound file, or not without a (or with this) checkpoint.
    """
    if spec.id == "waveform":
        return waveform_input(pcm)
    if spec.id in SPECS:
        return SPECS[spec.id].extract(pcm)
    if extractor.get("kind") != "avhubert" or extractor.get("modality") != "audio":
        raise ConfigError(
            f"the model listens to {spec.id}, which cannot be made of a sound file here: prepare the clips "
            "(syncdiff-prep folder, then syncdiff-prep features) and use --data"
        )
    trained_with = extractor["checkpoint"]
    if avhubert is None:
        raise ConfigError(
            f"the model listens to {spec.id}, made with {trained_with['name']}: "
            "give that checkpoint with --avhubert"
        )
    try:
        extract = load_avhubert(
            avhubert, "audio", extractor["layer"],
            dtype=extractor["dtype"], compute_dtype=extractor["compute_dtype"], device=device,
        )  # fmt: skip
    except (CheckpointError, ValueError) as error:
        raise ConfigError(f"--avhubert: {error}") from error
    if extract.checkpoint.sha256 != trained_with["sha256"]:
        raise ConfigError(
            f"--avhubert: {avhubert} is not the checkpoint that the model was trained with: "
            f"{trained_with['name']}, sha256 {trained_with['sha256']}"
        )
    frames = max(1, len(pcm) // SAMPLES_PER_FRAME)
    parts = [
        ExtractorInput(pcm[start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME], stop - start)
        for start, stop in quiet_cuts(pcm, frames, LONGEST_FRAMES)
    ]
    return np.concatenate([extract([part])[0].values for part in parts])
