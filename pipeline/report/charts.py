"""Small charts as inline SVG for the reports of data sets and of evaluations: numbers in, markup out.

Colours and fonts come from the page's style (style.html.j2), so that dark pages and narrow ones read as well.
All text is escaped. Lengths without a unit are the SVG's own, about a pixel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from syncdiff.pipeline.report.distributions import short
from syncdiff.pipeline.report.render import visible

F64 = NDArray[np.float64]

WIDTH, HEIGHT = 340, 190  # of a picture
AXIS_PX = 40  # room below the plotting area for ticks and unit
EDGE = 14  # room beside a spread, whose names stand above their bands
NAME_PX, BAND_PX, GAP_PX = 15, 20, 9  # rows of a spread, from top to bottom
SQUARE = 300  # side of a scatter plot
MOST_DOTS = 400  # drawn of a method's clips


@dataclass(frozen=True)
class Figure:
    """A chart with its title, a line of numbers below it and a sentence for its reader."""

    title: str
    chart: Markup
    caption: str = ""
    about: str = ""


def tag(name: str, *inside: object, css: str = "", **attributes: object) -> Markup:
    """An element with this content. All is escaped but markup; fractions are rounded to a tenth."""
    pairs = ({"class": css} if css else {}) | attributes
    written = [Markup(' {}="{}"').format(key.replace("_", "-"), _text(pairs[key])) for key in pairs]
    return Markup("<{0}{1}>{2}</{0}>").format(
        name, Markup("").join(written), Markup("").join(map(_text, inside))
    )


def _text(value: object) -> str:
    if isinstance(value, Markup):
        return value
    return f"{value:.1f}" if isinstance(value, float | np.floating) else visible(value)


def _svg(label: str, width: int, height: int, parts: Sequence[Markup]) -> Markup:
    return tag("svg", *parts, css="chart", viewBox=f"0 0 {width} {height}", role="img", aria_label=label)


@dataclass(frozen=True)
class Axes:
    """The plotting area: ranges (low, high) of x and y, and its edges in the picture. `log`: of x alone."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    left: int = 42
    top: int = 26
    right: int = WIDTH - 16  # room for half of the last number
    bottom: int = HEIGHT - AXIS_PX
    log: bool = False

    def x(self, values: ArrayLike) -> F64:
        """Where these values lie across the picture."""
        low, high, at = (np.log10(v) if self.log else np.asarray(v) for v in (*self.x_range, values))
        return np.asarray(self.left + (self.right - self.left) * (at - low) / (high - low), np.float64)[()]

    def y(self, values: ArrayLike) -> F64:
        """Where these values lie down the picture."""
        low, high = self.y_range
        share = (np.asarray(values) - low) / (high - low)
        return np.asarray(self.bottom - (self.bottom - self.top) * share, np.float64)[()]

    def draw_x(self, unit: str) -> Markup:
        """The line at the bottom with round numbers and what they count."""
        low, high = self.x_range
        ticks = _log_ticks(low, high) if self.log else nice_ticks(low, high, (self.right - self.left) // 40)
        parts = [tag("line", css="axis", x1=self.left, x2=self.right, y1=self.bottom, y2=self.bottom)]
        for at, tick in zip(self.x(ticks), ticks, strict=True):
            parts.append(tag("line", css="axis", x1=at, x2=at, y1=self.bottom, y2=self.bottom + 4))
            parts.append(tag("text", short(tick), x=at, y=self.bottom + 15, text_anchor="middle"))
        middle = (self.left + self.right) / 2
        parts.append(
            tag("text", _cut(unit, 46), css="unit", x=middle, y=self.bottom + 33, text_anchor="middle")
        )
        return Markup("").join(parts)

    def draw_y(self, unit: str, whole: bool = False) -> Markup:
        """Lines across at round numbers (whole ones where things are counted), what they count above."""
        parts = [tag("text", _cut(unit, 46), css="unit", x=2, y=11)]
        for tick in nice_ticks(*self.y_range, 5):
            if not whole or tick == round(tick):
                at = self.y(tick)
                parts.append(tag("line", css="grid", x1=self.left, x2=self.right, y1=at, y2=at))
                parts.append(tag("text", short(tick), x=self.left - 5, y=at + 3.5, text_anchor="end"))
        return Markup("").join(parts)

    def upright(self, value: float, kind: str) -> Markup:
        """A line through the whole plotting area at this x."""
        return tag("line", css=kind, x1=self.x(value), x2=self.x(value), y1=self.top - 4, y2=self.bottom)


def histogram(
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    label: str,
    unit: str,
    counted: str = "rows",
    median: tuple[float, str] | None = None,
    zero: bool = False,
    log: bool = False,
) -> Markup:
    """Bars over bins: `edges` has one entry more than `counts`.

    `median` (value, text) is marked; `zero` marks x = 0.
    """
    most = max(counts, default=0)
    if most == 0:
        return _svg(label, WIDTH, HEIGHT, [tag("text", "no values", css="none", x=WIDTH // 2, y=HEIGHT // 2)])
    axes = Axes((edges[0], edges[-1]), (0, most), log=log)
    parts = [axes.draw_y(counted, whole=True), axes.draw_x(unit)]
    if zero:
        parts.append(axes.upright(0, "zero"))
    for (low, high), count in zip(pairwise(edges), counts, strict=True):
        if count:
            left, right = axes.x([low, high])
            gap = 0.8 if right - left > 4 else 0.0
            top = min(float(axes.y(count)), axes.bottom - 1.0)  # a single row must still be seen
            text = f"{short(low)} to {short(high)}: {count:,} {counted}"
            parts.append(_rectangle(left, top, right - gap, axes.bottom, tag("title", text)))
    if median is not None:
        at = np.clip(axes.x(median[0]), axes.left + 50, axes.right - 40)
        parts.append(axes.upright(median[0], "median"))
        parts.append(tag("text", f"median {median[1]}", css="median", x=at, y=17, text_anchor="middle"))
    return _svg(label, WIDTH, HEIGHT, parts)


def heatmap(
    x_edges: Sequence[float],
    y_edges: Sequence[float],
    counts: Sequence[Sequence[int]],
    *,
    label: str,
    x_unit: str,
    y_unit: str,
    counted: str = "rows",
) -> Markup:
    """How often x and y come together: counts[i][j] in the i-th bin of y and the j-th of x."""
    most = max((max(row) for row in counts), default=0)
    axes = Axes((x_edges[0], x_edges[-1]), (y_edges[0], y_edges[-1]))
    parts = [axes.draw_x(x_unit), axes.draw_y(y_unit)]
    if x_edges[0] < 0 < x_edges[-1]:
        parts.append(axes.upright(0, "zero"))
    for (y_low, y_high), row in zip(pairwise(y_edges), counts, strict=True):
        for (x_low, x_high), count in zip(pairwise(x_edges), row, strict=True):
            if count:
                where = f"{short(x_low)} to {short(x_high)}, {short(y_low)} to {short(y_high)}"
                (left, right), (bottom, top) = axes.x([x_low, x_high]), axes.y([y_low, y_high])
                shade = f"{0.15 + 0.85 * (count / most) ** 0.5:.2f}"  # the root: rare pairs are seen too
                title = tag("title", f"{where}: {count:,} {counted}")
                parts.append(_rectangle(left, top, right, bottom, title, opacity=shade))
    return _svg(label, WIDTH, HEIGHT, parts)


def spread(methods: Mapping[str, F64], *, label: str, unit: str) -> Markup:
    """A band for each method: clips as dots, quartiles as a box, the median as a line, the mean as a diamond.

    Of more than MOST_DOTS clips every so many-th in order of size is drawn, the extremes among them.
    """
    scores = {name: np.sort(values) for name, values in methods.items() if len(values)}
    row = NAME_PX + BAND_PX + GAP_PX
    bottom = row * len(methods)
    axes = Axes(_range(list(scores.values())), (0, 1), left=EDGE, top=0, right=WIDTH - EDGE, bottom=bottom)
    parts = [axes.draw_x(unit)]
    for index, name in enumerate(methods):
        top = index * row + NAME_PX
        parts.append(tag("text", _cut(name, 46), css="who", x=EDGE, y=top - 4))
        if name not in scores:
            parts.append(tag("text", "no scores", x=EDGE, y=top + 14))
            continue
        low, middle, high = axes.x(np.quantile(scores[name], [0.25, 0.5, 0.75]))
        parts.append(_rectangle(low, top, max(high, low + 1), top + BAND_PX, css="box"))
        dots = scores[name][_evenly(len(scores[name]))]
        # Dots of like values are laid one above the other by a sequence that fills the band evenly.
        heights = top + 3 + (BAND_PX - 6) * ((np.arange(len(dots)) * 0.618034) % 1)
        parts.append(_dots(axes.x(dots), heights))
        parts.append(tag("line", css="middle", x1=middle, x2=middle, y1=top, y2=top + BAND_PX))
        diamond = f"M{axes.x(scores[name].mean()):.1f} {top + BAND_PX / 2 - 5}l5 5l-5 5l-5-5z"
        parts.append(tag("path", css="mean", d=diamond))
    return _svg(label, WIDTH, bottom + AXIS_PX, parts)


def scatter(x: F64, y: F64, *, label: str, x_name: str, y_name: str) -> Markup:
    """A dot a clip, and the line on which both are the same. Of many clips, an even choice by difference."""
    both = _range([x, y])
    axes = Axes(both, both, left=46, right=SQUARE - 22, bottom=SQUARE - AXIS_PX)
    kept = np.argsort(y - x, kind="stable")[_evenly(len(x))]
    same = tag("line", css="same", x1=axes.left, y1=axes.bottom, x2=axes.right, y2=axes.top)
    dots = _dots(axes.x(x[kept]), axes.y(y[kept]))
    return _svg(label, SQUARE, SQUARE, [axes.draw_x(x_name), axes.draw_y(y_name), same, dots])


@dataclass(frozen=True)
class Series:
    """A line over time: values [T], drawn between `low` and `high`. `filled` fills the area under it."""

    name: str
    style: str
    values: NDArray[np.floating]
    low: float
    high: float
    filled: bool = False

    def draw(self) -> Markup:
        """The line in a picture T wide and 100 high; what is not a number lies at the bottom."""
        numbers = np.nan_to_num(np.asarray(self.values, np.float64), nan=self.low)
        span = self.high - self.low
        height = 98 - 96 * np.clip((numbers - self.low) / (span if span > 0 else 1.0), 0, 1)
        points = " ".join(f"{x + 0.5:g},{y:.1f}" for x, y in enumerate(height))
        if self.filled:
            return tag("polygon", css=self.style, points=f"0,100 {points} {len(height)},100")
        return tag("polyline", css=self.style, vector_effect="non-scaling-stroke", points=points)


def timeline(
    series: Sequence[Series],
    *,
    rate_hz: float,
    label: str,
    marks: Sequence[tuple[float, str]] = (),
    span: tuple[float, float, str] | None = None,
    bands: Sequence[tuple[float, float]] = (),
) -> Markup:
    """Lines over one time axis that stretch to any width. All series have the same length T.

    marks: numbered places in time (seconds, text), as thin uprights. span: a bracket from one time to
    another with its text, as for a lag. bands: stretches of time to be hatched. Lines are stretched, text
    and strokes are not, so the chart reads the same wide and narrow.
    """
    frames = max(len(series[0].values), 1)
    duration_s = frames / rate_hz

    def place(time_s: float) -> str:
        return f"left:{100 * time_s / duration_s:.2f}%"

    def stretch(first_s: float, last_s: float) -> str:
        # The least width keeps a bracket of no length visible.
        return f"{place(first_s)};width:{max(100 * (last_s - first_s) / duration_s, 0.15):.2f}%"

    lines = [line.draw() for line in series]
    box = f"0 0 {frames} 100"
    parts = [tag("svg", *lines, viewBox=box, preserveAspectRatio="none", role="img", aria_label=label)]
    parts += [tag("div", css="band", style=stretch(first, last)) for first, last in bands]
    parts += [tag("div", tag("span", text), css="mark", style=place(at)) for at, text in marks]
    for at in nice_ticks(0, duration_s, 8):
        parts.append(tag("div", tag("span", f"{short(at)} s"), css="tick", style=place(at)))
    if span is not None:
        first, last = sorted(span[:2])
        side = "left" if first + last < duration_s else "right"  # the text lies where there is more room
        parts.append(tag("div", tag("b", span[2]), css=f"span {side}", style=stretch(first, last)))
    return tag("div", *parts, css="timeline")


def picture_map(width_px: int, height_px: int, boxes: Sequence[Sequence[float]], label: str) -> Markup:
    """Where in the source picture the boxes (x0, y0, x1, y1) lie: an outline of it with theirs."""
    scale = 100 / max(width_px, height_px, 1)
    width, height = width_px * scale, height_px * scale
    parts = [tag("title", label), _rectangle(0.0, 0.0, width, height, css="picture")]
    for box in boxes:
        x0, y0, x1, y1 = (edge * scale for edge in box)
        parts.append(_rectangle(x0, y0, max(x0, x1), max(y0, y1), css="box"))
    area = f"-1 -1 {width + 2:.1f} {height + 2:.1f}"
    shape = {"viewBox": area, "preserveAspectRatio": "xMinYMin"}
    return tag("svg", *parts, css="map", role="img", aria_label=label, **shape)


def sparkline(counts: Sequence[int]) -> str:
    """Bars of text, one a bin, for a terminal."""
    most = max(counts, default=0)
    return "".join(" ▁▂▃▄▅▆▇█"[-(-8 * count // most) if most else 0] for count in counts)


def nice_ticks(low: float, high: float, most: int = 6) -> tuple[float, ...]:
    """Round numbers in [low, high] at equal distances of 1, 2 or 5 times a power of ten, at most `most`."""
    if not high > low or most < 1:
        return (low,)
    scale = 10.0 ** np.floor(np.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * scale
        first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            break
    return tuple(float(np.round(k * step, 12)) + 0.0 for k in np.arange(first, last + 1))  # no -0


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    wanted = (1,) if np.log10(high / low) > 3 else (1, 2, 5) if np.log10(high / low) < 2 else (1, 3)
    ticks = [factor * 10.0**decade for decade in decades for factor in wanted]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def _rectangle(
    left: float, top: float, right: float, bottom: float, *inside: Markup, css: str = "bar", **more: str
) -> Markup:
    return tag("rect", *inside, css=css, x=left, y=top, width=right - left, height=bottom - top, **more)


def _dots(x: NDArray[np.floating], y: NDArray[np.floating]) -> Markup:
    """Dots as one path of lines without length, which round caps make visible."""
    return tag("path", css="dots", d="".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x, y, strict=True)))


def _evenly(number: int) -> NDArray[np.int64]:
    """Places of at most MOST_DOTS of so many, first and last among them."""
    return np.unique(np.linspace(0, number - 1, min(number, MOST_DOTS)).round().astype(np.int64))


def _range(values: Sequence[F64]) -> tuple[float, float]:
    """From the least to the greatest of all these values, with a margin."""
    together = np.concatenate(values) if values else np.zeros(1)
    low, high = float(together.min()), float(together.max())
    margin = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _cut(name: str, most: int) -> str:
    shown = visible(name)
    return shown if len(shown) <= most else shown[: most - 1] + "…"
