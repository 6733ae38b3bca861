from __future__ import annotations

from syncdiff.evaluate.metrics.registry import METRICS
from syncdiff.evaluate.report.metric_list import metric_lines


def test_each_metric_has_a_line_that_says_what_it_is() -> None:
    lines = {line.name: line for line in metric_lines()}
    assert list(lines) == list(METRICS)
    assert all(line.about and line.columns and line.protocols for line in lines.values())
    assert lines["lse"].columns.startswith("LSE-D ↓; LSE-C ↑; offset →0")
    assert lines["fid"].columns.endswith("(of a set)")
    assert lines["source_lse"].needs == "reference, syncnet"
    assert lines["silent_lips"].protocols == "(cross), (reconstruction), silent, (unsynced)"
