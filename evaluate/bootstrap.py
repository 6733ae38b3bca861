"""Means with intervals: percentile bootstrap over clips, and differences of methods clip by clip.

A clip is the unit that is drawn, since frames of a clip are not independent. Efron and Tibshirani 1993, "An
Introduction to the Bootstrap", sections 13.3 (percentile interval) and 8.3 (paired data).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
RESAMPLES_AT_ONCE = 1_000
LEVEL = 0.95
SEED = 0  # the same scores give the same interval


@dataclass(frozen=True)
class Interval:
    """A mean over `clips` clips and its 95 % interval; low and high are NaN for fewer than two clips."""

    mean: float
    low: float
    high: float
    clips: int


def bootstrap_mean(values: NDArray[np.floating], resamples: int = RESAMPLES) -> Interval:
    """Mean of values [n] and its percentile bootstrap interval. Raises ValueError for no values or NaN."""
    scores = np.asarray(values, np.float64)
    if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"expected finite values [n], n > 0; got shape {scores.shape}")
    mean = float(scores.mean())
    if len(scores) < 2:
        return Interval(mean, float("nan"), float("nan"), len(scores))
    parts = range(0, resamples, RESAMPLES_AT_ONCE)
    means = np.concatenate([_draws(len(scores), part) @ scores for part in parts])[:resamples]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high), len(scores))


@lru_cache(maxsize=RESAMPLES // RESAMPLES_AT_ONCE)
def _draws(clips: int, part: int) -> NDArray[np.float32]:
    """Share of each clip in the resamples of one part [r,n]; all values of a table use the same ones."""
    rng = np.random.default_rng([SEED, part])
    counts = rng.multinomial(clips, np.full(clips, 1 / clips), RESAMPLES_AT_ONCE)
    return (counts / clips).astype(np.float32)


def common_clips(methods: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Names of the clips that every method has a value for, sorted; the clips methods are compared on."""
    sets = [set(scores) for scores in methods.values()]
    return sorted(set.intersection(*sets)) if sets else []


def paired_difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Interval | None:
    """Mean of ours minus theirs over the clips that both have; None where they share none.

    An interval that leaves out 0 says that the methods differ on these clips.
    """
    shared = common_clips({"ours": ours, "theirs": theirs})
    if not shared:
        return None
    return bootstrap_mean(np.array([ours[name] - theirs[name] for name in shared]))
