"""What an extractor of features is: the protocol `Extractor`, its input, and how its values are rounded.

An extractor is a class with the members of `Extractor`: `syncdiff.pipeline.features.whisper` is a short one,
`syncdiff.pipeline.avhubert.extractor` a long one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from syncdiff.pipeline.records import F32, I16, U8, Features


@dataclass(frozen=True)
class ExtractorInput:
    """One clip: sound int16 [S] at 16 kHz, T frames at 25 per second, grey mouth pictures [T,96,96]."""

    pcm16: I16 | None
    num_frames: int
    mouth_rois: U8 | None = None


class Extractor(Protocol):
    """Turns clips into features. `width` values a step, `rate_hz` steps a second, stored as `dtype` (float16
    or float32); `needs` names what of a clip it reads: audio, video or both."""

    @property
    def id(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def width(self) -> int: ...

    @property
    def rate_hz(self) -> float: ...

    @property
    def dtype(self) -> str: ...

    @property
    def needs(self) -> frozenset[str]: ...

    def describe(self) -> dict[str, Any]:
        """The content of extractor.json: all that the values depend on, so that equal descriptions mean equal
        features."""
        ...

    def __call__(self, batch: Sequence[ExtractorInput]) -> list[Features]:
        """Features of each clip, in order. Raises ValueError where a clip lacks what the extractor needs."""
        ...


def stored_as(values: F32, dtype: str) -> F32:
    """Values rounded to what `dtype` can hold; raises ValueError where they do not fit or are no numbers."""
    with np.errstate(over="ignore"):  # reported below
        rounded: F32 = values.astype(dtype).astype(np.float32)
    if not np.isfinite(rounded).all():
        raise ValueError(f"the extractor gave values that are no numbers in {dtype}")
    return rounded
