"""Intervals against closed forms and against scipy's bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from syncdiff.evaluate.bootstrap import bootstrap_mean, common_clips, paired_difference


def test_interval_agrees_with_theory_and_scipy() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    ours = bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(ours.mean - half, abs=0.03)
    assert ours.high == pytest.approx(ours.mean + half, abs=0.03)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_the_same_scores_give_the_same_interval() -> None:
    values = np.arange(30.0)
    assert bootstrap_mean(values) == bootstrap_mean(values)


def test_one_clip_has_no_interval() -> None:
    only = bootstrap_mean(np.array([3.0]))
    assert only.mean == 3 and only.clips == 1 and np.isnan([only.low, only.high]).all()


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_nothing_to_average_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values"):
        bootstrap_mean(np.array(values))


def test_methods_are_compared_clip_by_clip() -> None:
    easy = {f"{i}": float(i) for i in range(50)}
    better = {f"{i}": i + 1 + 0.1 * (-1) ** i for i in range(10, 60)}
    assert len(common_clips({"a": easy, "b": better})) == 40
    difference = paired_difference(better, easy)
    assert difference is not None and difference.clips == 40
    assert (
        0 < difference.low < difference.mean < difference.high
    )  # though the spread over clips is far larger
    assert difference.mean == pytest.approx(1.0)
    assert paired_difference(easy, {"none": 1.0}) is None
