"""Small charts as inline SVG: text and numbers in, markup out. Colours and fonts come from the page's style.

Nothing here knows of data sets; all text is escaped. Lengths without a unit are the SVG's own, about a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from syncdiff.pipeline.report.distributions import nice_ticks, short

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 26, 40


@dataclass(frozen=True)
class Frame:
    """The plotting area: data ranges, and what maps them to the picture. `log` is for x alone."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    log: bool = False

    def x(self, value: float) -> float:
        low, high, at = self.x_low, self.x_high, value
        if self.log:
            low, high, at = (float(np.log10(v)) for v in (low, high, value))
        return LEFT + (WIDTH - LEFT - RIGHT) * (at - low) / (high - low)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share


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
    top = max(counts, default=0)
    if top == 0:
        return _svg(
            label, Markup('<text class="none" x="{}" y="{}">no values</text>').format(WIDTH // 2, HEIGHT // 2)
        )
    frame = Frame(edges[0], edges[-1], 0, top, log)
    parts = [_y_axis(frame, counted), _x_axis(frame, unit)]
    if zero:
        parts.append(_upright(frame, 0, "zero"))
    for (low, high), count in zip(pairwise(edges), counts, strict=True):
        if count:
            parts.append(_bar(frame, low, high, count, counted))
    if median is not None:
        parts.append(_upright(frame, median[0], "median"))
        at = float(np.clip(frame.x(median[0]), LEFT + 50, WIDTH - RIGHT - 40))
        parts.append(
            Markup('<text class="median" x="{:.1f}" y="{}" text-anchor="middle">median {}</text>').format(
                at, TOP - 9, median[1]
            )
        )
    return _svg(label, *parts)


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
    top = max((max(row) for row in counts), default=0)
    frame = Frame(x_edges[0], x_edges[-1], y_edges[0], y_edges[-1])
    parts = [_x_axis(frame, x_unit), _y_axis(frame, y_unit)]
    if x_edges[0] < 0 < x_edges[-1]:
        parts.append(_upright(frame, 0, "zero"))
    for (y_low, y_high), row in zip(pairwise(y_edges), counts, strict=True):
        for (x_low, x_high), count in zip(pairwise(x_edges), row, strict=True):
            if count:
                where = f"{short(x_low)} to {short(x_high)}, {short(y_low)} to {short(y_high)}"
                text = f"{where}: {count:,} {counted}"
                box = (frame.x(x_low), frame.y(y_high), frame.x(x_high), frame.y(y_low))
                parts.append(_rectangle(box, text, opacity=0.15 + 0.85 * (count / top) ** 0.5))
    return _svg(label, *parts)


@dataclass(frozen=True)
class Series:
    """A line over time: values [T], drawn between `low` and `high`. `filled` fills the area under it."""

    name: str
    style: str
    values: NDArray[np.floating]
    low: float
    high: float
    filled: bool = False


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
    steps = len(series[0].values)
    duration_s = max(steps, 1) / rate_hz
    drawn = Markup("").join(_line(one, steps) for one in series)
    picture = Markup(
        '<svg viewBox="0 0 {} 100" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(max(steps, 1), label, drawn)
    extra = [
        Markup('<div class="band" style="left:{:.2f}%;width:{:.2f}%"></div>').format(
            100 * first / duration_s, 100 * (last - first) / duration_s
        )
        for first, last in bands
    ]
    extra += [_pin("mark", at / duration_s, text) for at, text in marks]
    extra += [_pin("tick", at / duration_s, f"{short(at)} s") for at in nice_ticks(0, duration_s, 8)]
    if span is not None:
        first, last = sorted((span[0] / duration_s, span[1] / duration_s))
        side = "left" if (first + last) / 2 < 0.5 else "right"
        extra.append(
            Markup('<div class="span {}" style="left:{:.2f}%;width:{:.2f}%"><b>{}</b></div>').format(
                side, 100 * first, max(100 * (last - first), 0.15), span[2]
            )
        )
    return Markup('<div class="timeline">{}{}</div>').format(picture, Markup("").join(extra))


def _line(one: Series, steps: int) -> Markup:
    span = one.high - one.low
    known = np.nan_to_num(np.asarray(one.values, np.float64), nan=one.low)
    height = 98 - 96 * np.clip((known - one.low) / (span if span > 0 else 1.0), 0, 1)
    points = " ".join(f"{x + 0.5:g},{y:.1f}" for x, y in enumerate(height))
    if one.filled:
        return Markup('<polygon class="{}" points="0,100 {} {},100"/>').format(one.style, points, steps)
    return Markup('<polyline class="{}" vector-effect="non-scaling-stroke" points="{}"/>').format(
        one.style, points
    )


def _pin(kind: str, share: float, text: str) -> Markup:
    return Markup('<div class="{}" style="left:{:.2f}%"><span>{}</span></div>').format(
        kind, 100 * share, text
    )


def picture_map(width_px: int, height_px: int, boxes: Sequence[Sequence[float]], label: str) -> Markup:
    """Where in the source picture the boxes (x0, y0, x1, y1) lie: an outline of it with theirs."""
    scale = 100 / max(width_px, height_px, 1)
    drawn = [
        Markup('<rect class="box" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            x0 * scale, y0 * scale, max(0.0, x1 - x0) * scale, max(0.0, y1 - y0) * scale
        )
        for x0, y0, x1, y1 in boxes
    ]
    return Markup(
        '<svg class="map" viewBox="-1 -1 {w:.1f} {h:.1f}" preserveAspectRatio="xMinYMin" '
        'role="img" aria-label="{label}"><title>{label}</title>'
        '<rect class="picture" width="{iw:.1f}" height="{ih:.1f}"/>{boxes}</svg>'
    ).format(
        w=width_px * scale + 2,
        h=height_px * scale + 2,
        iw=width_px * scale,
        ih=height_px * scale,
        label=label,
        boxes=Markup("").join(drawn),
    )


def sparkline(counts: Sequence[int]) -> str:
    """Bars of text, one a bin, for a terminal."""
    top = max(counts, default=0)
    return "".join(" ▁▂▃▄▅▆▇█"[-(-8 * count // top) if top else 0] for count in counts)


def _bar(frame: Frame, low: float, high: float, count: int, counted: str) -> Markup:
    left, right = frame.x(low), frame.x(high)
    height = max(frame.y(0) - frame.y(count), 1.0)  # a single row must still be seen
    gap = 0.8 if right - left > 4 else 0.0
    text = f"{short(low)} to {short(high)}: {count:,} {counted}"
    return _rectangle((left, frame.y(0) - height, right - gap, frame.y(0)), text)


def _rectangle(box: tuple[float, float, float, float], text: str, opacity: float = 1.0) -> Markup:
    left, top, right, bottom = box
    return Markup(
        '<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" opacity="{:.2f}">'
        "<title>{}</title></rect>"
    ).format(left, top, right - left, bottom - top, opacity, text)


def _upright(frame: Frame, x: float, kind: str) -> Markup:
    at = frame.x(x)
    return Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
        kind, at, at, TOP - 4, HEIGHT - BOTTOM
    )


def _x_axis(frame: Frame, unit: str) -> Markup:
    base = HEIGHT - BOTTOM
    parts = [
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, base, base)
    ]
    ticks = _log_ticks(frame.x_low, frame.x_high) if frame.log else nice_ticks(frame.x_low, frame.x_high, 7)
    for tick in ticks:
        at = frame.x(tick)
        parts.append(
            Markup('<line class="axis" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
                at, at, base, base + 4
            )
        )
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                at, base + 15, short(tick)
            )
        )
    parts.append(
        Markup('<text class="unit" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 7, unit
        )
    )
    return Markup("").join(parts)


def _y_axis(frame: Frame, unit: str) -> Markup:
    parts = []
    for tick in nice_ticks(frame.y_low, frame.y_high, 5):
        if frame.y_low == 0 and tick != round(tick) and frame.y_high > 1:
            continue
        at = frame.y(tick)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                LEFT, WIDTH - RIGHT, at, at
            )
        )
        parts.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                LEFT - 5, at + 3.5, short(tick)
            )
        )
    parts.append(Markup('<text class="unit" x="{}" y="{}">{}</text>').format(2, TOP - 15, unit))
    return Markup("").join(parts)


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    wanted = (1,) if np.log10(high / low) > 3 else (1, 2, 5) if np.log10(high / low) < 2 else (1, 3)
    ticks = [factor * 10.0**decade for decade in decades for factor in wanted]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def _svg(label: str, *parts: Markup) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, escape(label), Markup("").join(parts)
    )
