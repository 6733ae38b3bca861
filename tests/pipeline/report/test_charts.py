"""Charts are well-formed SVG with the right proportions, and nothing in them escapes its text."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

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
    frame = charts.Frame(1, 100, 0, 1, log=True)
    assert frame.x(10) == pytest.approx((frame.x(1) + frame.x(100)) / 2)
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
