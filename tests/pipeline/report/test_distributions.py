"""Distributions counted in bins agree with the numbers themselves; round ticks are round."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncdiff.pipeline.report.distributions import (
    FRAME_QUANTITIES,
    ROW_QUANTITIES,
    Distribution,
    Quantity,
    RunningHistogram,
    add_joint,
    short,
)

FINE = Quantity("x", "X", "x", "px", 0, 100, 0.5, (0, 10))


def counted(quantity: Quantity, *parts: list[float]) -> Distribution:
    histogram = RunningHistogram(quantity)
    for part in parts:
        histogram.add(np.array(part))
    return histogram.finish()


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200), st.integers(0, 200))
def test_quantiles_are_right_within_a_bin_and_counts_are_complete(values: list[float], cut: int) -> None:
    found = counted(FINE, values[:cut], values[cut:])
    assert found.counts == counted(FINE, values).counts
    ordered = np.sort(values)
    for share, value in ((0.05, found.low), (0.5, found.median), (0.95, found.high)):
        exact = ordered[max(0, int(np.ceil(share * len(values))) - 1)]
        assert abs(value - exact) <= FINE.step + 1e-9
    assert (found.minimum, found.maximum) == (ordered[0], ordered[-1])
    assert sum(found.counts) + found.beyond == found.number == len(values)
    assert len(found.edges) == len(found.counts) + 1
    assert np.histogram(values, found.edges)[0].sum() == len(values) - found.beyond


def test_equal_values_have_themselves_as_quantiles() -> None:
    coverage = next(q for q in ROW_QUANTITIES if q.key == "coverage")
    found = counted(coverage, [100.0] * 9 + [97.3])
    assert (found.low, found.median, found.high) == (97.3, 100, 100)
    assert coverage.text(found.median) == "100.0"
    assert (found.edges[0], found.edges[-1]) == (80, 100)


def test_whole_numbers_have_bins_around_them() -> None:
    lag = next(q for q in ROW_QUANTITIES if q.key == "av_lag_frames")
    found = counted(lag, [-15, -3, -3, 0, 15])
    assert found.edges == tuple(np.arange(-15.5, 16))
    assert [found.counts[i] for i in (0, 12, 15, 30)] == [1, 2, 1, 1]
    assert found.median == -3
    assert lag.text(found.median) == "−3"


def test_a_far_tail_does_not_squeeze_the_rest() -> None:
    found = counted(FINE, [5.0] * 1000 + [99.0])
    assert found.edges[-1] < 40
    assert (found.beyond, found.maximum) == (1, 99)


def test_logarithmic_bins() -> None:
    sharpness = next(q for q in ROW_QUANTITIES if q.log)
    found = counted(sharpness, [0.0, 10, 100, 100, 1000])
    assert found.median == 100
    assert found.minimum == 0
    assert np.allclose(np.diff(np.log10(found.edges)), np.diff(np.log10(found.edges))[0])


def test_what_is_no_number_is_counted_as_missing() -> None:
    histogram = RunningHistogram(FINE)
    histogram.add(np.array([1.0, np.nan, np.inf]), missing=2)
    assert (histogram.finish().number, histogram.finish().missing) == (1, 4)
    empty = RunningHistogram(FINE).finish()
    assert (empty.number, empty.counts) == (0, ())
    assert np.isnan(empty.median)
    assert FINE.text(empty.median) == "–"


def test_values_beyond_the_range_count_in_its_last_bins() -> None:
    assert counted(FINE, [-5.0, 1e9]).number == 2


@pytest.mark.parametrize("quantity", [*ROW_QUANTITIES, *FRAME_QUANTITIES], ids=lambda q: q.key)
def test_every_quantity_can_be_counted_and_shown(quantity: Quantity) -> None:
    values = np.linspace(quantity.low, quantity.high - quantity.step, 999)
    found = counted(quantity, (10**values if quantity.log else values).tolist())
    assert 8 <= len(found.counts) <= 80
    assert sum(found.counts) == 999


def test_pairs_are_counted_together() -> None:
    counts = np.zeros((2, 3), np.int64)
    edges = np.array([0.0, 1, 2, 3]), np.array([0.0, 1, 2])
    add_joint(counts, np.array([0.5, 0.5, 2.5, 9, np.nan]), np.array([0.5, 0.5, 1.5, -9, 1]), *edges)
    assert counts.tolist() == [[2, 0, 1], [0, 0, 1]]


def test_numbers_read_well() -> None:
    assert [short(v) for v in (0, 0.123456, 12.34, 999, 12345, 2.5e6, -3)] == [
        "0", "0.123", "12.3", "999", "12.3k", "2.5M", "−3",
    ]  # fmt: skip
