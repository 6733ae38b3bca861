"""What a metric is: a few facts about itself, and three steps from a pair of clips to a value.

    measure    a pair of clips → statistics, small arrays that are kept on disk
    score      the statistics of one clip → its values
    pool       the statistics of all clips → the values of a method

What is slow happens in `measure`, once per clip; clips share decoding, tracking and regions through the pair.
A new metric is a file with a subclass of `Metric`, and a line in `syncdiff.evaluate.metrics.registry`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from syncdiff.evaluate.clip_pair import ClipPair

Statistics: TypeAlias = Mapping[str, NDArray[Any]]
# A value whose name ends so is the share of frames, in percent, in which a face should be and is none; such
# frames count as misses in the values beside it. Tables and warnings know it by the name.
FACE_LOST = "face_lost"
Better: TypeAlias = Literal["higher", "lower", "zero", "none"]


@dataclass(frozen=True)
class Value:
    """One column of the tables. `better`: which way is good ("zero": the nearer to 0; "none": neither)."""

    name: str
    title: str
    better: Better
    unit: str = ""
    digits: int = 3


def face_lost(metric: str) -> Value:
    """The column of frames without a face for a metric that counts them as misses."""
    return Value(f"{metric}_{FACE_LOST}", "face lost", "lower", "%", 1)


class Metric(ABC):
    """Subclasses state the facts and the first two steps.

    name: what users ask for. values: the columns that it gives. needs_reference, needs_sound,
    needs_transcript: what a pair must have. weights: names in configs/weights.yaml of the files it cannot run
    without. version: raised whenever the same input would give other statistics; kept statistics
    of older versions are then computed again. per_clip: False for values that exist for a set only. about:
    what it says, in a line of `--list-metrics`; without it the first line of its module.
    """

    name: ClassVar[str]
    values: ClassVar[tuple[Value, ...]]
    needs_reference: ClassVar[bool] = True
    needs_sound: ClassVar[bool] = False
    needs_transcript: ClassVar[bool] = False
    weights: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    per_clip: ClassVar[bool] = True
    about: ClassVar[str] = ""

    def settings(self) -> dict[str, Any]:
        """Everything chosen that changes the statistics or names the protocol, as plain JSON values."""
        return {}

    @abstractmethod
    def measure(self, pair: ClipPair) -> Statistics:
        """Statistics of one pair. Raises ClipError where the pair has none."""

    @abstractmethod
    def score(self, statistics: Statistics) -> dict[str, float]:
        """The values of one clip, by the names in `values`."""

    def pool(self, clips: Iterable[Statistics]) -> dict[str, float]:
        """The values of a set of at least one clip: by default the unweighted mean over clips.

        clips: gone through once; a large set need not be in memory at once.
        """
        scores = [self.score(clip) for clip in clips]
        return {value.name: float(np.mean([score[value.name] for score in scores])) for value in self.values}
