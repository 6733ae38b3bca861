"""`syncdiff-prep inspect`: a prepared data set as tables in the terminal and as a page with contact sheets.

The page is one file that opens from disk. The same data set gives the same bytes: no time, host or place
enters it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from syncdiff.pipeline.console import bytes_text
from syncdiff.pipeline.records import advice
from syncdiff.pipeline.report import charts
from syncdiff.pipeline.report.charts import Figure
from syncdiff.pipeline.report.contact_sheets import MOMENTS, Sheet, lag_text, make_sheet
from syncdiff.pipeline.report.distributions import FRAME_QUANTITIES, Distribution, short
from syncdiff.pipeline.report.outliers import choose_rows
from syncdiff.pipeline.report.render import render, visible
from syncdiff.pipeline.report.summary import Summary, summarise
from syncdiff.pipeline.store.read import Dataset, open_dataset
from syncdiff.pipeline.store.write import write_atomic

PAGE_BYTES = 9_000_000  # of pictures in a page; what else is in it stays below a megabyte
BAR_WIDTH = 112  # columns of a terminal that has room for bars
SPREAD_HEADING = "A spread of the data set"
SPREAD_ABOUT = "Evenly over all rows, to see what is usual here."


@dataclass(frozen=True)
class Group:
    """Sheets shown for one reason."""

    heading: str
    about: str
    sheets: tuple[Sheet, ...]

    @property
    def anchor(self) -> str:
        return self.heading.lower().replace(" ", "-").replace(",", "")


def write_report(root: Path, *, sheets: int = 24, summary: Summary | None = None) -> Path:
    """Write `report/index.html` of a data set, with at most `sheets` contact sheets, and return its path.

    `summary` saves going through the columns again where it is known already. Raises StoreError where there
    is no finished data set.
    """
    dataset = open_dataset(root)
    summary = summarise(dataset) if summary is None else summary
    html = render(
        "syncdiff.pipeline.report",
        "report.html.j2",
        summary=summary,
        title=headline(summary),
        findings=findings(summary),
        figures=figures(summary),
        groups=make_groups(dataset, summary, sheets),
        advice=advice,
        bytes_text=bytes_text,
        short=short,
    )
    path = dataset.paths.report
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, html.encode("utf-8", "backslashreplace"))
    return path


def headline(summary: Summary) -> str:
    """What it is and how much of it, in a line."""
    part = f", {summary.split}" if summary.split else ""
    rows = "row" if summary.rows == 1 else "rows"
    hours = summary.hours
    time = f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
    return f"{summary.layout}{part}: {summary.rows:,} {rows}, {time}"


def findings(summary: Summary) -> tuple[str, ...]:
    """What a user should know before using the data set, in sentences; the worst first."""

    def inputs(number: int) -> str:
        return f"{number:,} input was" if number == 1 else f"{number:,} inputs were"

    sentences = []
    untrained = ", ".join(f.id for f in summary.features if f.untrained)
    if untrained:
        sentences.append(
            f"Features {untrained} were made with untrained stand-in weights: they mean nothing."
        )
    if not summary.rows:
        sentences.append("There are no rows: every input was rejected.")
    for reject in summary.rejects:
        if reject.reason == "internal-error":
            mistakes = inputs(reject.number)
            sentences.append(f"{mistakes} rejected through a mistake in this program; please report it.")
    transient = sum(r.transient for r in summary.rejects)
    if transient:
        sentences.append(f"{inputs(transient)} failed for a passing cause; run the same command again.")
    lag = summary.distribution("av_lag_frames")
    if lag.number >= 20 and abs(lag.median) >= 2:
        sentences.append(f"Median lag: {lag_text(round(lag.median))}. The whole data set may be out of step.")
    silent = summary.rows - summary.rows_with_sound
    if silent:
        sentences.append(f"Rows without sound: {silent:,} of {summary.rows:,}.")
    if summary.damaged_rows:
        sentences.append(f"Rows that come from damaged, yet usable files: {summary.damaged_rows:,}.")
    return tuple(sentences)


def figures(summary: Summary) -> tuple[Figure, ...]:
    """All charts of the page."""
    per_frame = {q.key for q in FRAME_QUANTITIES}
    drawn = []
    for d in summary.distributions:
        chart = charts.histogram(
            d.edges,
            d.counts,
            label=d.quantity.title,
            unit=d.quantity.unit,
            counted="frames" if d.quantity.key in per_frame else "rows",
            median=(d.median, d.quantity.text(d.median)) if d.number else None,
            zero=d.quantity.shown[0] < 0,
            log=d.quantity.log,
        )
        drawn.append(Figure(d.quantity.title, chart, _caption(d), d.quantity.about))
    for joint, counted in zip(summary.joints, ("rows", "frames"), strict=True):
        chart = charts.heatmap(
            joint.x_edges,
            joint.y_edges,
            joint.counts,
            label=joint.title,
            x_unit=joint.x_unit,
            y_unit=joint.y_unit,
            counted=counted,
        )
        drawn.append(Figure(joint.title, chart, f"deeper colour: more {counted}", joint.about))
    return tuple(drawn)


def _caption(d: Distribution) -> str:
    if not d.number:
        return f"no values ({d.missing:,} unknown)" if d.missing else "no values"
    text = d.quantity.text
    parts = [f"5 to 95 %: {text(d.low)} to {text(d.high)}", f"all: {text(d.minimum)} to {text(d.maximum)}"]
    if d.beyond:
        parts.append(f"{d.beyond:,} beyond the edges")
    if d.missing:
        parts.append(f"{d.missing:,} unknown")
    return " · ".join(parts)


def make_groups(dataset: Dataset, summary: Summary, sheets: int) -> tuple[Group, ...]:
    """Contact sheets, grouped by why they are shown."""
    chosen = choose_rows(dataset, summary, sheets)
    # A sheet has three pictures a moment, and base64 makes four bytes of three.
    image_bytes = PAGE_BYTES * 3 // 4 // (max(len(chosen), 1) * 3 * MOMENTS)
    groups = []
    for criterion, rows in groupby(chosen, key=lambda row: row.criterion):
        heading, about = (criterion.heading, criterion.about) if criterion else (SPREAD_HEADING, SPREAD_ABOUT)
        drawn = tuple(make_sheet(dataset[row.row], row.also, image_bytes) for row in rows)
        groups.append(Group(heading, about, drawn))
    return tuple(groups)


def print_summary(console: Console, summary: Summary) -> None:
    """Counts, rejects, features and distributions as tables that fit 80 columns."""
    console.print(escape(headline(summary)), style="bold", highlight=False)
    splits = _table("split", "inputs", "prepared", "rejected", "rows", "frames", "hours", "speakers")
    for s in summary.splits:
        counts = (f"{n:,}" for n in (s.inputs, s.prepared, s.rejects, s.rows, s.frames))
        splits.add_row(_safe(s.name), *counts, short(s.hours), f"{s.speakers:,}" if s.speakers else "-")
    console.print(splits)
    if summary.rejects:
        rejects = Table(box=SIMPLE_HEAD, pad_edge=False)
        rejects.add_column("inputs", justify="right", no_wrap=True)
        rejects.add_column("rejected because", overflow="fold")
        for r in summary.rejects:
            lines = [f"[bold]{_safe(f'{r.stage}/{r.reason}')}[/]  {advice(r.reason)}"]
            lines += [f"[dim]{_safe(source)}: {_safe(detail)}[/]" for source, detail in r.examples[:1]]
            rejects.add_row(f"{r.number:,}", "\n".join(lines))
        console.print(rejects)
    if summary.features:
        features = _table("features", "values", "per second", "size")
        features.add_column("what they are", overflow="fold")
        for f in summary.features:
            about = _safe(f.about) + (" [bold red]untrained[/]" if f.untrained else "")
            about += f" [dim]({_safe(f.checkpoint)})[/]" if f.checkpoint else ""
            rate = "?" if f.rate_hz is None else f"{f.rate_hz:g}"
            features.add_row(_safe(f.id), str(f.width or "?"), rate, bytes_text(f.bytes), about)
        console.print(features)
    if summary.rows:
        bars = console.width >= BAR_WIDTH and not console.options.ascii_only
        distributions = _table("", "lowest", "5 %", "median", "95 %", "highest", "unknown")
        if bars:
            distributions.add_column("", no_wrap=True)
        for d in summary.distributions:
            cells = [d.quantity.text(v) for v in (d.minimum, d.low, d.median, d.high, d.maximum)]
            cells += [f"{d.missing:,}" if d.missing else "", *([charts.sparkline(d.counts)] if bars else [])]
            distributions.add_row(d.quantity.brief, *cells)
        console.print(distributions)
    for sentence in findings(summary):
        console.print(f"[yellow]![/] {escape(sentence)}", highlight=False)


def _table(*names: str) -> Table:
    """A table whose columns after the first hold numbers."""
    table = Table(names[0], box=SIMPLE_HEAD, pad_edge=False)
    for name in names[1:]:
        table.add_column(name, justify="right")
    return table


def _safe(text: str) -> str:
    """Text from elsewhere for a table: no markup in it, nothing invisible."""
    return escape(visible(text))
