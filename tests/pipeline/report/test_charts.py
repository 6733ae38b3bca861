"""Charts are well-formed SVG with the right proportions, and nothing in them escapes its text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncdiff.pipeline.report import charts

EVIL = "<script>\"'&"


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{markup}</div>")


def named(root: ElementTree.Element, css: str) -> list[ElementTree.Element]:
    return [e for e in root.iter() if css in e.get("class", "").split()]


def test_bars_are_as_high_as_their_counts() -> None:
    svg = parsed(charts.histogram([0, 1, 2, 3], [2, 0, 8], label=EVIL, unit=EVIL, median=(2.5, EVIL)))
    heights = [float(bar.get("height", "")) for bar in named(svg, "bar")]
    assert heights[1] == pytest.approx(4 * heights[0], rel=0.01)
    assert [t.text for t in svg.iter("title")] == ["0 to 1: 2 rows", "2 to 3: 8 rows"]
    assert f"median {EVIL}" in [t.text for t in svg.iter("text")]
    assert svg[0].get("aria-label") == EVIL


def test_one_among_many_is_still_seen() -> None:
    svg = parsed(charts.histogram([0, 1, 2], [1, 1_000_000], label="", unit=""))
    assert min(float(bar.get("height", "")) for bar in named(svg, "bar")) >= 1


def test_logarithmic_axes_space_decades_evenly() -> None:
    axes = charts.Axes((1, 100), (0, 1), log=True)
    assert axes.x(10) == pytest.approx((axes.x(1) + axes.x(100)) / 2)
    texts = [
        t.text
        for t in parsed(charts.histogram([1, 10, 100], [1, 1], label="", unit="", log=True)).iter("text")
    ]
    assert {"1", "10", "100"} <= set(texts)


def test_nothing_to_count_is_said() -> None:
    assert "no values" in charts.histogram([], [], label="", unit="")


def test_heatmap_shades_by_count() -> None:
    svg = parsed(charts.heatmap([0, 1, 2], [0, 1], [[1, 4]], label="", x_unit=EVIL, y_unit=EVIL))
    shades = [float(cell.get("opacity", "")) for cell in named(svg, "bar")]
    assert shades == [pytest.approx(0.575, abs=0.01), 1.0]
    assert not named(parsed(charts.heatmap([0, 1], [0, 1], [[0]], label="", x_unit="", y_unit="")), "bar")


def test_a_timeline_has_its_marks_span_and_bands_in_place() -> None:
    values = np.array([0, 1, np.nan, 0.5], np.float32)
    series = [
        charts.Series("a", "loudness", values, 0, 1, filled=True),
        charts.Series("b", "opening", values, 0, 1),
    ]
    html = parsed(
        charts.timeline(
            series, rate_hz=2, label=EVIL, marks=[(1.0, EVIL)], span=(1.5, 1.0, EVIL), bands=[(0.5, 1.0)]
        )
    )
    assert named(html, "mark")[0].get("style") == "left:50.00%"
    assert named(html, "span")[0].get("style") == "left:50.00%;width:25.00%"
    assert named(html, "band")[0].get("style") == "left:25.00%;width:25.00%"
    line = named(html, "opening")[0].get("points", "").split()
    assert [float(p.split(",")[0]) for p in line] == [0.5, 1.5, 2.5, 3.5]
    assert [float(p.split(",")[1]) for p in line] == [98, 2, 98, 50]


def test_a_flat_line_and_a_single_step_are_drawn() -> None:
    series = [charts.Series("a", "opening", np.zeros(1, np.float32), 0, 0)]
    assert named(parsed(charts.timeline(series, rate_hz=25, label="")), "opening")


def test_boxes_keep_their_place_in_the_picture() -> None:
    svg = parsed(charts.picture_map(200, 100, [(50, 0, 100, 50)], EVIL))
    (box,) = named(svg, "box")
    assert [float(box.get(k, "")) for k in ("x", "y", "width", "height")] == [25, 0, 25, 25]


def test_bars_of_text() -> None:
    assert charts.sparkline([0, 1, 4, 8]) == " ▁▄█"
    assert charts.sparkline([0, 1, 1000]) == " ▁█"
    assert charts.sparkline([]) == ""


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6), st.integers(2, 12))
def test_ticks_are_even_inside_and_not_too_many(start: float, width: float, most: int) -> None:
    low = start * width
    ticks = np.array(charts.nice_ticks(low, low + width, most))
    assert len(ticks) <= most
    assert (ticks >= low - 1e-6 * width).all()
    assert (ticks <= low + width * (1 + 1e-6)).all()
    if len(ticks) > 2:
        np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-6)


def test_ticks_are_round_numbers() -> None:
    assert charts.nice_ticks(0, 10) == (0, 2, 4, 6, 8, 10)
    assert charts.nice_ticks(-0.4, 0.4, 5) == (-0.4, -0.2, 0, 0.2, 0.4)
    assert charts.nice_ticks(3, 3) == (3,)


def test_counts_have_whole_ticks_only() -> None:
    svg = parsed(charts.histogram([0, 1, 2], [1, 0], label="", unit=""))
    assert len(named(svg, "grid")) == 2
    assert {t.text for t in svg.iter("text") if t.get("text-anchor") == "end"} == {"0", "1"}


def places(path: ElementTree.Element) -> list[tuple[float, float]]:
    """Where the dots of a path lie."""
    return [(float(x), float(y)) for x, y in re.findall(r"M(\S+) (\S+?)h0", path.get("d", ""))]


def test_a_spread_has_a_band_for_each_method() -> None:
    scores = {EVIL: np.array([4.0, 1.0, 2.0, 3.0]), "empty": np.array([])}
    svg = parsed(charts.spread(scores, label=EVIL, unit=EVIL))
    (box,), (middle,), (dots,) = (named(svg, css) for css in ("box", "middle", "dots"))
    xs = sorted(x for x, _ in places(dots))
    left, right = float(box.get("x", "")), float(box.get("x", "")) + float(box.get("width", ""))
    assert np.interp([1.75, 3.25], [1, 4], [xs[0], xs[-1]]) == pytest.approx([left, right], abs=0.2)
    assert float(middle.get("x1", "")) == pytest.approx((xs[0] + xs[-1]) / 2, abs=0.2)
    assert [t.text for t in svg.iter("text") if t.text in (EVIL, "no scores")] == [EVIL, EVIL, "no scores"]


def test_of_many_clips_the_extremes_are_drawn() -> None:
    (dots,) = named(parsed(charts.spread({"a": np.arange(5000.0)}, label="", unit="")), "dots")
    xs = [x for x, _ in places(dots)]
    assert len(xs) == charts.MOST_DOTS
    axes = charts.Axes(
        (-0.04 * 4999, 1.04 * 4999), (0, 1), left=charts.EDGE, right=charts.WIDTH - charts.EDGE
    )
    assert [min(xs), max(xs)] == pytest.approx(list(axes.x([0, 4999])), abs=0.1)


def test_a_scatter_has_the_line_on_which_both_are_the_same() -> None:
    x, y = np.array([0.0, 1, 2]), np.array([0.0, 2, 1])
    svg = parsed(charts.scatter(x, y, label=EVIL, x_name="line\nbreak", y_name="n" * 99))
    (same,), (dots,) = named(svg, "same"), named(svg, "dots")
    x1, y1, x2, y2 = (float(same.get(k, "")) for k in ("x1", "y1", "x2", "y2"))
    above = sorted(round((y1 + (px - x1) * (y2 - y1) / (x2 - x1) - py) / 10) for px, py in places(dots))
    assert above[0] == -above[2] < 0 == above[1]
    texts = [t.text for t in svg.iter("text")]
    assert "line\\nbreak" in texts
    assert "n" * 45 + "…" in texts


def test_equal_scores_have_a_range() -> None:
    for chart in (
        charts.spread({"a": np.zeros(3)}, label="", unit=""),
        charts.scatter(np.ones(2), np.ones(2), label="", x_name="", y_name=""),
    ):
        assert "nan" not in chart and "e-0" not in chart
