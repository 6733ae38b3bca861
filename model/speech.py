"""A sound file as a model hears it: read, refused where nobody speaks, turned into the model's features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from syncdiff.model.audio import AudioSpec, waveform_input
from syncdiff.model.config import ConfigError
from syncdiff.pipeline.audio import loudness, quiet_cuts
from syncdiff.pipeline.checkpoint import CheckpointError
from syncdiff.pipeline.extractors import ExtractorInput, load_avhubert
from syncdiff.pipeline.features import SPECS
from syncdiff.pipeline.media import read_audio
from syncdiff.pipeline.records import F32, FPS, I16, SAMPLES_PER_FRAME, ClipError

# In the band of speech formants; quiet speech reaches -45 dB, a recorder's noise about -75.
SILENCE_DB = -60.0
# As `syncdiff-prep` cuts rows by default: AV-HuBERT's attention grows with the square of the length.
LONGEST_FRAMES = 20 * FPS


@dataclass(frozen=True)
class Hearing:
    """How a model hears: its features, what made them (extractor.json), and on what device."""

    spec: AudioSpec
    extractor: dict[str, Any]
    device: str


def read_speech(path: Path) -> I16:
    """Sound int16 [S] at 16 kHz. Raises ClipError no-sound, or no-speech where it is silent throughout."""
    pcm = read_audio(path)
    if pcm is None or len(pcm) == 0:
        raise ClipError("media", "no-sound", f"{path}: the file holds no sound")
    loudest = float(loudness(pcm, max(1, len(pcm) // SAMPLES_PER_FRAME)).max())
    if loudest < SILENCE_DB:
        detail = f"{path}: nothing in it is louder than {loudest:.0f} dB; there is no speech to follow"
        raise ClipError("generate", "no-speech", detail)
    return pcm


def speech_features(hearing: Hearing, pcm: I16, avhubert: Path | None = None) -> F32:
    """The model's features [M,D] of sound int16 [S] at 16 kHz; `avhubert` is the checkpoint, where one is
    needed.

    Raises ConfigError where they cannot be made of a sound file, or not without a (or with this) checkpoint.
    """
    spec = hearing.spec
    if spec.id == "waveform":
        return waveform_input(pcm)
    if spec.id in SPECS:
        return SPECS[spec.id].extract(pcm, len(pcm) // SAMPLES_PER_FRAME)
    made_by = hearing.extractor
    if made_by.get("kind") != "avhubert" or made_by.get("modality") != "audio":
        raise ConfigError(
            f"the model listens to {spec.id}, which cannot be made of a sound file here: prepare the clips "
            "(syncdiff-prep folder, then syncdiff-prep features) and use --data"
        )
    wanted = made_by["checkpoint"]
    if avhubert is None:
        raise ConfigError(
            f"the model listens to {spec.id}, made with {wanted['name']}: "
            "give that checkpoint with --avhubert"
        )
    try:
        extract = load_avhubert(
            avhubert, "audio", made_by["layer"],
            dtype=made_by["dtype"], compute_dtype=made_by["compute_dtype"], device=hearing.device,
        )  # fmt: skip
    except (CheckpointError, ValueError) as error:
        raise ConfigError(f"--avhubert: {error}") from error
    if extract.checkpoint.sha256 != wanted["sha256"]:
        raise ConfigError(
            f"--avhubert: {avhubert} is not the checkpoint that the model was trained with: "
            f"{wanted['name']}, sha256 {wanted['sha256']}"
        )
    frames = max(1, len(pcm) // SAMPLES_PER_FRAME)
    parts = quiet_cuts(pcm, frames, LONGEST_FRAMES)
    pieces = [pcm[a * SAMPLES_PER_FRAME : b * SAMPLES_PER_FRAME] for a, b in parts]
    inputs = [ExtractorInput(piece, b - a) for piece, (a, b) in zip(pieces, parts, strict=True)]
    return np.concatenate([extract([one])[0].values for one in inputs])
