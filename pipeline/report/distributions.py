"""Distributions of numbers that are too many to keep: counted into fine bins as they come by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syncdiff.pipeline.records import check_array


@dataclass(frozen=True)
class Quantity:
    """Something to be counted: its names, and the fine bins it is counted in. `brief` is for narrow tables.

    low, high, step: the bins' range and width; with `log` in decades (base 10) of the value. shown: the
    part of that range which a drawing always spans, so that charts of different data sets resemble one
    another. `whole` marks whole numbers, whose bins lie around them. `about` is a sentence for the reader of
    the chart.
    """

    key: str
    title: str
    brief: str
    unit: str
    low: float
    high: float
    step: float
    shown: tuple[float, float]
    about: str = ""
    whole: bool = False
    log: bool = False

    def text(self, value: float) -> str:
        """A value with no more digits than the bins can tell apart."""
        if not np.isfinite(value):
            return "–"
        if self.log:
            return short(value)
        decimals = max(0, int(-np.floor(np.log10(self.step) + 1e-9)))
        return f"{round(value, decimals) + 0.0:,.{decimals}f}".replace("-", "−")


@dataclass(frozen=True)
class Distribution:
    """A finished distribution: bins to draw, and quantiles (within a fine bin's width; exact at both ends).

    edges has one more entry than counts; `beyond` values lie outside of the edges, `missing` were null or
    not a number. With no value at all the quantiles are NaN and there are no bins.
    """

    quantity: Quantity
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    number: int
    missing: int
    beyond: int
    minimum: float
    low: float  # 5 % lie below
    median: float
    high: float  # 5 % lie above
    maximum: float


class RunningHistogram:
    """Counts one quantity. Memory does not grow with the number of values."""

    def __init__(self, quantity: Quantity) -> None:
        self.quantity = quantity
        self._start = quantity.low - (0.5 * quantity.step if quantity.whole else 0.0)
        self._bins = np.zeros(round((quantity.high - quantity.low) / quantity.step), np.int64)
        self._sums = np.zeros(len(self._bins))
        self._missing = 0
        self._minimum, self._maximum = np.inf, -np.inf

    def add(self, values: NDArray[Any], missing: int = 0) -> None:
        """Count these values [n]; those that are not numbers count as missing, as do `missing` more."""
        numbers = np.asarray(values, np.float64)
        numbers = numbers[np.isfinite(numbers)]
        self._missing += missing + len(values) - len(numbers)
        if not len(numbers):
            return
        self._minimum = min(self._minimum, float(numbers.min()))
        self._maximum = max(self._maximum, float(numbers.max()))
        if self.quantity.log:
            bins = self._bin_of(np.log10(np.maximum(numbers, 10.0**self.quantity.low)))
        else:
            bins = self._bin_of(numbers)
        self._bins += np.bincount(bins, minlength=len(self._bins))
        self._sums += np.bincount(bins, numbers, len(self._bins))

    def finish(self, max_bins: int = 36) -> Distribution:
        """The distribution so far, with about 2 n^(1/3) bins to draw (Rice's rule), at most `max_bins`."""
        number = int(self._bins.sum())
        if not number:
            nan = float("nan")
            return Distribution(self.quantity, (), (), 0, self._missing, 0, nan, nan, nan, nan, nan)
        first, last, width = self._drawn(number, max_bins)
        part = self._bins[first:last]
        counts = np.add.reduceat(part, np.arange(0, len(part), width))
        edges = self._start + self.quantity.step * (first + width * np.arange(len(counts) + 1))
        edges = 10.0**edges if self.quantity.log else np.round(edges, 9)
        return Distribution(
            self.quantity,
            edges=tuple(edges.tolist()),
            counts=tuple(counts.tolist()),
            number=number,
            missing=self._missing,
            beyond=number - int(counts.sum()),
            minimum=self._minimum,
            low=self._quantile(0.05),
            median=self._quantile(0.5),
            high=self._quantile(0.95),
            maximum=self._maximum,
        )

    def _bin_of(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """The fine bins of these values; a value on an edge belongs above it, but for rounding of 1e-9."""
        place = np.floor((values - self._start) / self.quantity.step + 1e-9).astype(np.int64)
        return np.asarray(np.clip(place, 0, len(self._bins) - 1), np.int64)

    def _quantile(self, share: float) -> float:
        """The mean of the bin in which the quantile lies: exact where all its values are the same."""
        total = np.cumsum(self._bins)
        place = int(np.searchsorted(total, share * total[-1]))
        return float(np.clip(self._sums[place] / self._bins[place], self._minimum, self._maximum))

    def _drawn(self, number: int, max_bins: int) -> tuple[int, int, int]:
        """First and last fine bin to draw, and how many of them make a drawn one.

        A far tail is cut off where it would leave the bulk no room: at the quantiles 0.5 and 99.5 %.
        """
        used = np.flatnonzero(self._bins)
        first, last = int(used[0]), int(used[-1]) + 1
        total = np.cumsum(self._bins)
        inner_first, inner_last = (int(np.searchsorted(total, q * number)) for q in (0.005, 0.995))
        always_first, always_last = self._bin_of(np.array(self.quantity.shown))
        inner_first, inner_last = min(inner_first, always_first), max(inner_last, always_last)
        if last - first > 3 * (inner_last + 1 - inner_first):
            first, last = inner_first, inner_last + 1
        first, last = min(first, always_first), max(last, always_last + 1)
        wanted = int(np.clip(2 * number ** (1 / 3), 12, max_bins))
        width = 1
        if not self.quantity.whole:  # the next whole number of the form 1, 2 or 5 times a power of ten
            least = max((last - first) / wanted, 1.0)
            scale = int(10 ** np.floor(np.log10(least)))
            width = next(factor * scale for factor in (1, 2, 5, 10) if factor * scale >= least)
        while (last - first) > width * max_bins * 2:
            width *= 2
        first -= first % width
        return first, min(last + -(last - first) % width, len(self._bins)), width


@dataclass(frozen=True)
class Joint:
    """How two quantities go together: counts[i][j] rows lie in the i-th bin of y and the j-th of x."""

    title: str
    about: str
    x_unit: str
    y_unit: str
    x_edges: tuple[float, ...]
    y_edges: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]


def add_joint(
    counts: NDArray[np.int64],
    x: NDArray[Any],
    y: NDArray[Any],
    x_edges: NDArray[np.float64],
    y_edges: NDArray[np.float64],
) -> None:
    """Count pairs into `counts` [Y,X] in place; what lies beyond the edges counts at the edge."""
    check_array("counts", counts, np.int64, (len(y_edges) - 1, len(x_edges) - 1))
    both = np.isfinite(x) & np.isfinite(y)
    columns = np.clip(np.searchsorted(x_edges, x[both], "right") - 1, 0, counts.shape[1] - 1)
    rows = np.clip(np.searchsorted(y_edges, y[both], "right") - 1, 0, counts.shape[0] - 1)
    np.add.at(counts, (rows, columns), 1)


def short(value: float) -> str:
    """A number with about three digits, thousands as 12k: what an axis has room for."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    text = f"{value:.0f}" if size >= 100 else f"{value:.3g}"
    return text.replace("-", "−")


HEAD_POSE = ("pitch", "yaw", "roll")  # order of head_pose_deg

ROW_QUANTITIES = (
    Quantity("duration_s", "Length of the rows", "length, s", "seconds", 0, 600, 0.1, (0, 5)),
    Quantity("interocular_px", "Size of the faces", "eyes apart, px", "source pixels between the eyes",
             0, 1000, 0.5, (0, 60), "A face is about two and a half times as wide as its eyes are apart."),
    Quantity("sharpness", "Sharpness of the crops", "sharpness", "variance of the Laplacian",
             -1, 5, 0.02, (1, 2.5), log=True,
             about="Grows with detail and with noise; comparable only among crops of one size."),
    Quantity("coverage", "Coverage", "coverage, %", "% of a row's frames with the face detected",
             0, 100, 0.1, (80, 100), "In the other frames it was interpolated."),
    Quantity("av_lag_frames", "Lag of the sound", "lag, frames", "frames of 40 ms, sound minus picture",
             -15, 16, 1, (-15, 15), whole=True,
             about="A data set in sync has its peak at or next to 0. Rows of low correlation scatter."),
    Quantity("av_correlation", "Mouth opening and loudness", "correlation", "correlation at the best lag",
             -1, 1, 0.01, (0, 1), "The higher, the surer the lag. Dubbed and off-screen voices stay low."),
)  # fmt: skip
FRAME_QUANTITIES = (
    Quantity("mouth_opening", "Mouth opening", "mouth opening", "lip gap, 1 = as far as the eyes are apart",
             0, 2, 0.01, (0, 0.4)),
    Quantity("yaw", "Head turned sideways", "yaw, degrees", "degrees of yaw, + to the picture's right",
             -90, 90, 0.5, (-45, 45)),
    Quantity("pitch", "Head up or down", "pitch, degrees", "degrees of pitch, + up", -90, 90, 0.5, (-30, 30)),
    Quantity("roll", "Head tilted", "roll, degrees", "degrees of roll, + clockwise",
             -180, 180, 0.5, (-30, 30)),
)  # fmt: skip
