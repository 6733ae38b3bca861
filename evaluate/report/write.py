"""The report of an evaluation: tables in the terminal, and files for papers, programs and eyes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from syncdiff.evaluate.records import Evaluation
from syncdiff.evaluate.report.html import make_page
from syncdiff.evaluate.report.json_csv import metrics_json, per_clip_csv, per_clip_parquet
from syncdiff.evaluate.report.markdown_latex import latex, markdown
from syncdiff.evaluate.report.published import Published, published_table
from syncdiff.evaluate.report.tables import make_results
from syncdiff.evaluate.report.terminal import print_tables
from syncdiff.pipeline.store.write import write_atomic


def print_report(
    console: Console,
    evaluation: Evaluation,
    published: Sequence[Published] = (),
    baseline: str | None = None,
) -> None:
    """All tables, and what was not computed and why, for a terminal of 80 columns or more.

    baseline: the method that the others are compared with, the first unless named. Raises ValueError for one
    that is not there.
    """
    results = make_results(evaluation, baseline)
    print_tables(console, evaluation, results, published_table(evaluation, results, published))


def write_report(
    evaluation: Evaluation,
    out_dir: Path,
    published: Sequence[Published] = (),
    baseline: str | None = None,
    *,
    clips: int = 18,
    rank_by: str | None = None,
) -> tuple[Path, ...]:
    """Write metrics.json, per_clip.parquet and .csv, table.md, table.tex and report.html; return their paths.

    The same evaluation gives the same bytes. Each file is wholly there or not at all. clips: how many of the
    worst and best clips the page shows with pictures, 0 for none. rank_by: the value that says which those
    are. Raises ValueError for a baseline or rank_by that is not there.
    """
    results = make_results(evaluation, baseline)
    table = published_table(evaluation, results, published)
    page = make_page(evaluation, results, table, out_dir, clips=clips, rank_by=rank_by)
    files = {
        "metrics.json": metrics_json(evaluation, results, table),
        "per_clip.parquet": per_clip_parquet(evaluation, results),
        "per_clip.csv": per_clip_csv(evaluation, results),
        "table.md": _encoded(markdown(evaluation, results, table)),
        "table.tex": _encoded(latex(evaluation, results, table)),
        "report.html": _encoded(page),
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_atomic(out_dir / name, data)
    return tuple(out_dir / name for name in files)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
