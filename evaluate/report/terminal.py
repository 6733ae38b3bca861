"""The report in the terminal: narrow tables, one line per method, and all that a reader must know of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from syncdiff.evaluate.records import Evaluation
from syncdiff.evaluate.report.published import PublishedTable
from syncdiff.evaluate.report.tables import VERDICT_RULE, ReportTables, clips_text, lse_name
from syncdiff.evaluate.report.text_tables import (
    TextCell,
    TextTable,
    difference_matrix,
    figure_table,
    published_text,
)
from syncdiff.evaluate.report.warnings import (
    failure_groups,
    flagged_mismatches,
    mismatch_sentence,
    mismatch_text,
    unmatched_text,
)
from syncdiff.pipeline.report.render import visible

MOST_LISTED = 12
NAME_SHARE = 0.3  # of the width, at most, for names of methods
GAP = 2
STYLES = {"best": "bold", "ours": "bold", "lost": "red"}
VERDICTS = {"better": "green", "worse": "red"}


def print_tables(
    console: Console, evaluation: Evaluation, results: ReportTables, published: PublishedTable | None
) -> None:
    """Everything, in the order in which it is to be read: figures, differences, what is missing and why."""
    protocol = evaluation.protocol.get("name") or "without name"
    clips = len({case.clip for case in evaluation.cases})
    methods = len(evaluation.methods)
    head = f"protocol {protocol} · LSE {lse_name(evaluation)} · {clips_text(clips)} · "
    head += f"{methods} method" + ("s" if methods != 1 else "")
    console.print(Text(visible(head), style="bold"))
    for block in results.blocks:
        table = figure_table(block)
        scored = len(table.heads) - 2
        for group in packed(console.width, table):
            columns = [0, *group, scored, scored + 1]
            _draw(console, table, columns, name_width=_name_width(80, table), no_wrap=group)
        _print_notes(console, block.notes)
    if results.differences:
        _say(console, f"\nDifference from {visible(results.baseline)}, clip by clip", "bold")
        table = difference_matrix(results)
        for group in _groups(range(1, len(table.heads)), max(1, (console.width - 20) // 30)):
            _draw(console, table, [0, *group], fold=True)
        _say(console, f"Over the clips that both have. {VERDICT_RULE}", "dim")
        _print_notes(console, results.general_notes)
    if published is not None:
        _say(console, f"\nPublished figures for {visible(published.dataset)}", "bold")
        table = published_text(published)
        source = len(table.heads) - 1
        for group in _groups(range(1, source), 3):
            _draw(console, table, [0, *group, source], name_width=24)
        for note in table.notes:
            _say(console, visible(note), "dim")
    _print_missing(console, evaluation)
    for note in evaluation.notes:
        _say(console, f"! {visible(note)}", "yellow")


def packed(width: int, table: TextTable) -> Iterator[Sequence[int]]:
    """The columns between the method and its counts in groups that fit the width, at least one in each."""
    room = width - _name_width(width, table) - len("scored") - len("dropped") - 3 * GAP
    group: list[int] = []
    used = 0
    for column in range(1, len(table.heads) - 2):
        texts = [table.heads[column], *(_text(row[column]).plain for row in table.rows)]
        need = max(map(cell_len, texts)) + GAP
        if group and used + need > room:
            yield group
            group, used = [], 0
        group.append(column)
        used += need
    yield group


def _name_width(width: int, table: TextTable) -> int:
    longest = max((cell_len(_text(row[0]).plain) for row in table.rows), default=0)
    return max(len("method"), min(longest, int(NAME_SHARE * width)))


def _groups(columns: Sequence[int], size: int) -> list[Sequence[int]]:
    return [columns[start : start + size] for start in range(0, len(columns), size)] or [()]


def _draw(
    console: Console,
    table: TextTable,
    columns: Sequence[int],
    *,
    name_width: int | None = None,
    no_wrap: Sequence[int] = (),
    fold: bool = False,
) -> None:
    """Some columns of a table. fold: whether long figures are broken, rather than cut, as all names are."""
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, GAP // 2))
    for column in columns:
        left = table.align[column] == "l"
        drawn.add_column(
            Text(visible(table.heads[column])),
            justify="left" if left else "right",
            overflow="fold" if left or fold else "ellipsis",
            max_width=None if column else name_width,
            no_wrap=column in no_wrap,
        )
    for row in table.rows:
        drawn.add_row(*(_text(row[column]) for column in columns))
    console.print(drawn)


def _text(cell: TextCell) -> Text:
    """The interval without the style of its figure, and what is better or worse called so."""
    text = Text(f"{cell.text:,}" if isinstance(cell.text, int) else visible(cell.text))
    text.stylize(STYLES.get(cell.style, ""))
    if cell.interval:
        text.append(f" {cell.interval}")
    return text.append(f" {cell.style}", VERDICTS[cell.style]) if cell.style in VERDICTS else text


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), highlight=False)


def _print_notes(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        _say(console, visible(note), "bold red" if note.startswith("UNVERIFIED") else "dim")


def _print_missing(console: Console, evaluation: Evaluation) -> None:
    """Metrics not computed, clips not scored or of another length than their references, unmatched files."""
    if evaluation.not_computed:
        _say(console, "\nNot computed", "bold")
    for metric in evaluation.not_computed:
        _say(console, f"{visible(metric.metric)}: {visible(metric.reason)}", "yellow")
        for line in metric.detail.splitlines():
            _say(console, f"  {visible(line)}")
    groups = failure_groups(evaluation)
    if groups:
        _say(console, "\nClips that could not be scored", "bold")
    for group in groups:
        reason = f"UNEXPECTED, please report: {group.reason}" if group.unexpected else group.reason
        text = visible(f"{clips_text(group.number)} of {group.method} · {group.metrics} · {reason}")
        _say(console, text, "bold red" if group.unexpected else "")
        _say(console, visible(f"  {group.example}"), "dim")
    sentence = mismatch_sentence(evaluation)
    if sentence:
        _say(console, f"\n{sentence}")
    _list(console, [mismatch_text(mismatch) for mismatch in flagged_mismatches(evaluation)])
    if evaluation.unmatched:
        _say(console, f"\nUnmatched: {len(evaluation.unmatched):,}", "bold")
    _list(console, [unmatched_text(file) for file in evaluation.unmatched])


def _list(console: Console, lines: Sequence[str]) -> None:
    for line in lines[:MOST_LISTED]:
        _say(console, f"  {visible(line)}", "yellow")
    if len(lines) > MOST_LISTED:
        _say(console, f"  … and {len(lines) - MOST_LISTED:,} more, all in metrics.json")
