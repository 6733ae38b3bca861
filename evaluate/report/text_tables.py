"""The tables of a report as texts, made once for terminal, Markdown and LaTeX; those only draw them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from syncdiff.evaluate.report.published import PublishedTable
from syncdiff.evaluate.report.tables import VERDICT_RULE, Difference, MetricTable, ReportTables


@dataclass(frozen=True)
class TextCell:
    """text: a whole number is a count. interval: in brackets beside it. style: why it stands out."""

    text: str | int
    interval: str = ""
    style: Literal["", "best", "better", "worse", "lost", "ours"] = ""


@dataclass(frozen=True)
class TextTable:
    """title: "" where the notes say what it is. align: l or r for each column.

    about: the rest of the sentence that the title begins. notes: what must be known of the figures.
    """

    label: str
    title: str
    heads: tuple[str, ...]
    align: str
    rows: tuple[tuple[TextCell, ...], ...]
    about: str = ""
    notes: tuple[str, ...] = ()


def figure_table(block: MetricTable) -> TextTable:
    """A method a row: its figures over the shared clips, and how many clips were scored and dropped."""
    rows = []
    for method in block.methods:
        cells = [TextCell(method)]
        for column in block.columns:
            best = block.best.get(column.key) == method
            cell = block.cells[method, column.key]
            mean, interval = column.texts(cell.shared)
            cells.append(TextCell(mean + cell.mark, interval, style="best" if best else ""))
        coverage = block.coverage(method)
        lost = TextCell(coverage.dropped, style="lost" if coverage.dropped else "")
        rows.append((*cells, TextCell(coverage.scored), lost))
    heads = ("method", *(column.head for column in block.columns), "scored", "dropped")
    align = "l" + "r" * (len(heads) - 1)
    return TextTable(block.family.lower(), "", heads, align, tuple(rows), notes=block.notes)


def difference_table(results: ReportTables) -> TextTable:
    """A row for each method and value, for pages that are long rather than broad."""
    rows = []
    for difference in results.differences:
        text, number = " ".join(difference.texts).strip(), str(difference.interval.clips)
        cells = (difference.method, difference.column.head, text, number, difference.verdict)
        rows.append(tuple(map(TextCell, cells)))
    about = f"clip by clip, over the clips that both have. {VERDICT_RULE} {' '.join(results.general_notes)}"
    heads = ("method", "value", "difference [95 %]", "clips", "")
    title = f"Difference from {results.baseline}"
    return TextTable("differences", title, heads, "llrrl", tuple(rows), about)


def difference_matrix(results: ReportTables) -> TextTable:
    """A row for each value, a column for each method."""
    methods = tuple(dict.fromkeys(difference.method for difference in results.differences))

    def cell(difference: Difference | None) -> TextCell:
        return TextCell("–") if difference is None else TextCell(*difference.texts, style=difference.verdict)

    rows = tuple(
        (TextCell(column.head), *(cell(differences.get(method)) for method in methods))
        for column, differences in results.difference_lines
    )
    return TextTable("differences", "", ("value", *methods), "l" + "r" * len(methods), rows)


def published_text(published: PublishedTable) -> TextTable:
    """A method a row, one's own first, with its source in the last column."""
    rows = []
    for line in published.lines:
        figures = (TextCell(line.cells.get(key, "")) for key in published.keys)
        rows.append((TextCell(line.name, style="ours" if line.ours else ""), *figures, TextCell(line.source)))
    heads = ("", *(published.heads[key] for key in published.keys), "source")
    title, align = f"Published figures, {published.dataset}", "l" + "r" * len(published.keys) + "l"
    return TextTable("published", title, heads, align, tuple(rows), notes=published.notes)
