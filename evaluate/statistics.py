"""Means with intervals: percentile bootstrap over clips, and differences of methods clip by clip.

A clip is the unit that is drawn, since frames of a clip are not independent. Efron and Tibshirani 1993, "An
Introduction to the Bootstrap", sections 13.3 (percentile interval) and 8.3 (paired data).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
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
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"expected finite values [n], n > 0; got shape {values.shape}")
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"), len(values))
    rng = np.random.default_rng(SEED)
    # Drawing how often each clip occurs, instead of which clips, needs no [resamples, n] gather at once.
    means = np.concatenate(
        [_resampled_means(values, min(1000, resamples - done), rng) for done in range(0, resamples, 1000)]
    )
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high), len(values))


def _resampled_means(
    values: NDArray[np.float64], resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    draws = rng.integers(0, len(values), (resamples, len(values)))
    return np.asarray(values[draws].mean(axis=1), np.float64)


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
