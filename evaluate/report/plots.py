"""Charts of scores as inline SVG: their spread, and one method against another. All text is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from syncdiff.pipeline.report.distributions import nice_ticks, short
from syncdiff.pipeline.report.render import visible

MOST_DOTS = 400
WIDTH = 340
EDGE = 14  # room beside the plotting area
NAME_PX, BAND_PX, GAP_PX = 15, 20, 9
AXIS_PX = 34
SQUARE = 300
LEFT, TOP, RIGHT = 46, 26, 22  # of the square
LONGEST_NAME = 46


def spread(methods: Mapping[str, NDArray[np.float64]], *, label: str, unit: str) -> Markup:
    """A band for each method: clips as dots, quartiles as a box, the median as a line, the mean as a diamond.

    Of more than MOST_DOTS clips every so many-th in order of size is drawn, the extremes among them.
    """
    known = {name: np.sort(values) for name, values in methods.items() if len(values)}
    low, high = _range(list(known.values()))
    row = NAME_PX + BAND_PX + GAP_PX
    height = row * len(methods) + AXIS_PX
    parts = [_horizontal_axis(low, high, EDGE, WIDTH - EDGE, height - AXIS_PX, unit)]
    for index, name in enumerate(methods):
        top = index * row
        shown = visible(name)
        cut = shown if len(shown) <= LONGEST_NAME else shown[: LONGEST_NAME - 1] + "…"
        parts.append(Markup('<text class="who" x="{}" y="{}">{}</text>').format(EDGE, top + 11, cut))
        if name in known:
            parts.append(_band(known[name], low, high, top + NAME_PX))
        else:
            parts.append(Markup('<text x="{}" y="{}">no scores</text>').format(EDGE, top + NAME_PX + 14))
    return _svg(WIDTH, height, label, parts)


def _band(values: NDArray[np.float64], low: float, high: float, top: int) -> Markup:
    def x(value: float) -> float:
        return EDGE + (WIDTH - 2 * EDGE) * (value - low) / (high - low)

    quartiles = [float(q) for q in np.quantile(values, [0.25, 0.5, 0.75])]
    middle = top + BAND_PX / 2
    drawn = values[_evenly(len(values))]
    # Dots of like values are laid one above the other by a sequence that fills the band evenly.
    heights = top + 3 + (BAND_PX - 6) * ((np.arange(len(drawn)) * 0.618034) % 1)
    dots = "".join(f"M{x(v):.1f} {y:.1f}h0" for v, y in zip(drawn.tolist(), heights.tolist(), strict=True))
    mean = x(float(values.mean()))
    box = Markup('<rect class="box" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
        x(quartiles[0]), top, max(x(quartiles[2]) - x(quartiles[0]), 1), BAND_PX
    )
    median = Markup('<line class="middle" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(
        x(quartiles[1]), top, top + BAND_PX
    )
    diamond = Markup('<path class="mean" d="M{:.1f} {}l5 5l-5 5l-5-5z"/>').format(mean, middle - 5)
    return box + Markup('<path class="dots" d="{}"/>').format(dots) + median + diamond


def scatter(
    x: NDArray[np.float64], y: NDArray[np.float64], *, label: str, x_name: str, y_name: str
) -> Markup:
    """A dot a clip, and the line on which both are the same. Of many clips, an even choice by difference."""
    low, high = _range([x, y])
    base, right = SQUARE - AXIS_PX, SQUARE - RIGHT
    order = np.argsort(y - x, kind="stable")
    kept = order[_evenly(len(order))]

    def across(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(LEFT + (right - LEFT) * (values - low) / (high - low))

    def up(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(base - (base - TOP) * (values - low) / (high - low))

    places = zip(across(x[kept]).tolist(), up(y[kept]).tolist(), strict=True)
    dots = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in places)
    parts = [_horizontal_axis(low, high, LEFT, right, base, x_name)]
    for tick in nice_ticks(low, high, 5):
        at = float(up(np.array([tick]))[0])
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, right, at, at)
        )
        parts.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                LEFT - 5, at + 4, short(tick)
            )
        )
    parts.append(
        Markup('<line class="same" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(LEFT, base, right, TOP)
    )
    parts.append(Markup('<path class="dots" d="{}"/>').format(dots))
    parts.append(Markup('<text class="unit" x="{}" y="{}">{}</text>').format(LEFT, 10, _cut(y_name)))
    return _svg(SQUARE, SQUARE, label, parts)


def _cut(name: str) -> str:
    shown = visible(name)
    return shown if len(shown) <= 38 else shown[:37] + "…"


def _evenly(number: int) -> NDArray[np.int64]:
    """Places of at most MOST_DOTS of so many, first and last among them."""
    return np.unique(np.linspace(0, number - 1, min(number, MOST_DOTS)).round().astype(np.int64))


def _range(values: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    together = np.concatenate(values) if values else np.zeros(1)
    low, high = float(together.min()), float(together.max())
    margin = 0.04 * (high - low) or max(abs(high), 1e-6) * 0.1
    return low - margin, high + margin


def _horizontal_axis(low: float, high: float, left: int, right: int, base: int, unit: str) -> Markup:
    parts = [Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(left, right, base, base)]
    for tick in nice_ticks(low, high, 5):
        at = left + (right - left) * (tick - low) / (high - low)
        parts.append(
            Markup('<line class="axis" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(
                at, base, base + 4
            )
        )
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                at, base + 16, short(tick)
            )
        )
    middle = (left + right) / 2
    parts.append(
        Markup('<text class="unit" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            middle, base + 31, _cut(unit)
        )
    )
    return Markup("").join(parts)


def _svg(width: int, height: int, label: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg class="chart plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, visible(label), Markup("").join(parts)
    )
