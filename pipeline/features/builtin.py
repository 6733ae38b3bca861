"""The features that need no weights, made together with the clips: `logfbank` and `mel`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from syncdiff.pipeline.features.filterbanks import logfbank, wav2lip_mel
from syncdiff.pipeline.records import F32, FPS, I16, Features
from syncdiff.pipeline.store.paths import StorePaths
from syncdiff.pipeline.store.write import write_atomic


@dataclass(frozen=True)
class FeatureSpec:
    """An extractor without weights: `width` values a step, `rate_hz` steps a second.

    `extract` turns sound int16 [S] into values [M,width].
    """

    id: str
    width: int
    rate_hz: float
    source: str
    extract: Callable[[I16], F32]

    def describe(self) -> dict[str, Any]:
        """The content of extractor.json."""
        return {
            "id": self.id,
            "kind": self.id,
            "source": self.source,
            "width": self.width,
            "rate_hz": self.rate_hz,
            "dtype": "float32",
            "checkpoint": None,
            "untrained": False,
        }


def fit_length(values: F32, length: int) -> tuple[F32, int]:
    """Trim or zero-pad the tail of [M,D] to M = `length`; the second value counts padded (negative: cut)
    steps."""
    added = length - len(values)
    if added > 0:
        values = np.concatenate([values, np.zeros((added, values.shape[1]), values.dtype)])
    return np.ascontiguousarray(values[:length]), added


def extract_features(pcm: I16 | None, num_frames: int, names: Sequence[str]) -> tuple[Features, ...]:
    """These features of one row's sound (int16 [T*640]); none where there is no sound."""
    if pcm is None:
        return ()
    features = []
    for name in names:
        spec = SPECS[name]
        values, added = spec.extract(pcm), 0
        if spec.rate_hz == FPS:  # one step a frame, exactly; mel keeps the steps that Wav2Lip's program gives
            values, added = fit_length(values, num_frames)
        features.append(Features(name, values, spec.rate_hz, added))
    return tuple(features)


def write_extractor_files(paths: StorePaths, names: Sequence[str]) -> None:
    """extractor.json of each of these features."""
    for name in names:
        path = paths.extractor(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(SPECS[name].describe(), indent=1, sort_keys=True).encode())


SPECS: dict[str, FeatureSpec] = {
    "logfbank": FeatureSpec(
        "logfbank", 104, 25.0,
        "AV-HuBERT's audio input: 26 log filter banks at 100 Hz, 4 stacked, before layer norm",
        logfbank),
    "mel": FeatureSpec(
        "mel", 80, 80.0,
        "Wav2Lip's mel spectrogram in [-4, 4]; frame i uses the 16 steps from floor(80*i/25)",
        lambda pcm: np.ascontiguousarray(wav2lip_mel(pcm).T)),
}  # fmt: skip
