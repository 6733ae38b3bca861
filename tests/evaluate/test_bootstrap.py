"""Intervals against closed forms and against scipy's bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from syncdiff.evaluate.bootstrap import (
    bootstrap_mean,
    clusters_of,
    common_clips,
    holm,
    paired_difference,
    sign_flip_p,
)


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
    test = paired_difference(better, easy)
    assert test is not None
    difference, p = test
    assert difference.clips == difference.units == 40
    assert p == pytest.approx(1 / 10_001)
    assert (
        0 < difference.low < difference.mean < difference.high
    )  # though the spread over clips is far larger
    assert difference.mean == pytest.approx(1.0)
    assert paired_difference(easy, {"none": 1.0}) is None


def test_clips_of_their_own_are_clusters_of_one() -> None:
    values = np.random.default_rng(2).normal(0, 1, 50)
    assert bootstrap_mean(values) == bootstrap_mean(values, [f"{k:02d}" for k in range(50)])


def test_clusters_of_several_sizes_agree_with_theory() -> None:
    """The variance of a ratio estimate by linearization: sum of squared (sum - mean * size), over n²."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 30, 200)
    groups = np.repeat(np.arange(200), sizes)
    values = rng.normal(0, 2, 200)[groups] + rng.normal(0, 1, len(groups))
    found = bootstrap_mean(values, [str(group) for group in groups])
    residuals = np.bincount(groups, values - values.mean())
    half = 1.96 * np.sqrt((residuals**2).sum()) / len(values)
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.06)
    assert (found.clips, found.units) == (len(values), 200)


def test_intervals_hold_the_truth_by_speaker_and_not_by_clip() -> None:
    """40 speakers of 30 clips, whose speakers differ four times as much as clips of one."""
    rng = np.random.default_rng(4)
    groups = np.repeat([f"s{k:02d}" for k in range(40)], 30)
    by_speaker = by_clip = 0
    for _ in range(300):
        values = np.repeat(rng.normal(0, 1, 40), 30) + rng.normal(0, 0.25, 1200)
        found = bootstrap_mean(values, groups, resamples=1000)
        by_speaker += found.low < 0 < found.high
        by_clip += abs(values.mean()) < 1.96 * values.std() / np.sqrt(1200)  # as the bootstrap over clips
    assert by_speaker / 300 > 0.91
    assert by_clip / 300 < 0.5


@pytest.mark.parametrize("groups", [None, list("aabbccddee")])
def test_sign_flips_of_few_are_all_tried(groups: list[str] | None) -> None:
    differences = np.arange(1.0, 11)
    assert sign_flip_p(differences, groups) == 2 / 2 ** (10 if groups is None else 5)
    assert sign_flip_p(-differences, groups) == sign_flip_p(differences, groups)


def test_p_values_are_even_where_nothing_differs() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat([f"s{k:02d}" for k in range(20)], 5)
    p = [
        sign_flip_p(np.repeat(rng.normal(0, 1, 20), 5) + rng.normal(0, 0.3, 100), groups) for _ in range(200)
    ]
    assert np.mean(np.array(p) < 0.05) < 0.1
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_holm() -> None:
    """The worked rule: the smallest times 3, the next times 2, the last as it is, never falling."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_one_cluster_for_all_says_nothing_of_others() -> None:
    assert clusters_of(["a", "b"], {"a": "s", "b": "s"}) is None
    assert clusters_of(["a", "b"], {}) is None
    assert clusters_of(["a", "b", "c"], {"a": "s", "b": "s"}) == ["s", "s", "c"]
