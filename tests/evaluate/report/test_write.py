from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from syncdiff.evaluate.report.write import write_report

from .synthetic_evaluation import printed, synthetic


def test_files_are_whole_and_the_same_each_time(written: Path, tmp_path: Path) -> None:
    evaluation = synthetic()
    first = [path.read_bytes() for path in write_report(evaluation, tmp_path / "a", clips=0)]
    paths = write_report(evaluation, tmp_path / "b", clips=0)
    assert [path.read_bytes() for path in paths] == first
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [
        "metrics.json", "per_clip.csv", "per_clip.parquet", "report.html", "table.md", "table.tex",
    ]  # fmt: skip


def test_nothing_scored_is_still_a_report(tmp_path: Path) -> None:
    empty = replace(synthetic(), scores=(), pooled=(), failures=())
    assert "No clip could be scored." in printed(empty)
    assert "Nothing could be scored." in write_report(empty, tmp_path)[-1].read_text("utf-8")


def test_no_metrics_at_all(tmp_path: Path) -> None:
    empty = replace(synthetic(), scores=(), pooled=(), failures=(), metrics=(), cases=(), unmatched=())
    assert "Not computed" in printed(empty)
    write_report(empty, tmp_path)
