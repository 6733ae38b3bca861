"""The report in the terminal: narrow tables, one line per method, and all that a reader must know of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from syncdiff.evaluate.records import Evaluation
from syncdiff.evaluate.report.published import PublishedTable
from syncdiff.evaluate.report.tables import (
    VERDICT_RULE,
    Difference,
    MetricTable,
    ReportTables,
    ValueColumn,
    clips_text,
    difference_matrix,
    difference_text,
    dropped,
    interval_text,
    is_general,
    lse_name,
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
        for columns in packed(console.width, block, results):
            console.print(_block_table(block, columns))
        _print_notes(console, block.notes)
    if results.differences:
        _print_differences(console, results)
    if published is not None:
        _print_published(console, published)
    _print_not_computed(console, evaluation)
    _print_failures(console, evaluation)
    _print_mismatches(console, evaluation)
    _print_unmatched(console, evaluation)
    for note in evaluation.notes:
        _say(console, f"! {visible(note)}", "yellow")


def packed(width: int, block: MetricTable, results: ReportTables) -> Iterator[tuple[ValueColumn, ...]]:
    """The block's columns in groups that fit the width, at least one in each."""
    name = _name_width(width, block.methods)
    room = width - name - len("scored") - len("dropped") - 3 * GAP
    group: list[ValueColumn] = []
    used = 0
    for column in block.columns:
        texts = [column.head, *(_cell_text(block, method, column) for method in block.methods)]
        need = max(map(cell_len, texts)) + GAP
        if group and used + need > room:
            yield tuple(group)
            group, used = [], 0
        group.append(column)
        used += need
    yield tuple(group)


def _name_width(width: int, names: Sequence[str]) -> int:
    longest = max((cell_len(visible(name)) for name in names), default=0)
    return max(len("method"), min(longest, int(NAME_SHARE * width)))


def _cell_text(block: MetricTable, method: str, column: ValueColumn) -> str:
    return " ".join(interval_text(column, block.cells[method, column.key].shared)).strip()


def _table(first: str, width: int | None = None) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, GAP // 2))
    table.add_column(first, overflow="fold", max_width=width)
    return table


def _block_table(block: MetricTable, columns: Sequence[ValueColumn]) -> Table:
    table = _table("method", _name_width(80, block.methods))
    for column in columns:
        table.add_column(escape(column.head), justify="right", no_wrap=True)
    table.add_column("scored", justify="right")
    table.add_column("dropped", justify="right")
    for method in block.methods:
        coverage = block.coverage(method)
        cells = []
        for column in columns:
            text = Text(_cell_text(block, method, column))
            if block.best.get(column.key) == method:
                text.stylize("bold", 0, text.plain.find(" ") if " " in text.plain else len(text.plain))
            cells.append(text)
        lost = Text(f"{dropped(coverage):,}", style="red" if dropped(coverage) else "")
        table.add_row(Text(visible(method)), *cells, f"{coverage.scored:,}", lost)
    return table


def _print_notes(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        _say(console, visible(note), "bold red" if note.startswith("UNVERIFIED") else "dim")


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), highlight=False)


def _print_differences(console: Console, results: ReportTables) -> None:
    _say(console, f"\nDifference from {visible(results.baseline)}, clip by clip", "bold")
    lines = difference_matrix(results)
    methods = list(dict.fromkeys(one.method for one in results.differences))
    for group in _groups(methods, max(1, (console.width - 20) // 30)):
        table = _table("value")
        for method in group:
            table.add_column(Text(visible(method)), justify="right", overflow="fold")
        for column, found in lines:
            table.add_row(escape(column.head), *(_difference_cell(found.get(method)) for method in group))
        console.print(table)
    _say(console, f"Over the clips that both have. {VERDICT_RULE}", "dim")
    named = dict.fromkeys(note for block in results.blocks for note in block.notes if is_general(note))
    _print_notes(console, list(named))


def _difference_cell(difference: Difference | None) -> Text:
    text = Text(difference_text(difference))
    if difference is not None and difference.verdict:
        text.append(f" {difference.verdict}", style="green" if difference.verdict == "better" else "red")
    return text


def _print_published(console: Console, published: PublishedTable) -> None:
    _say(console, f"\nPublished figures for {visible(published.dataset)}", "bold")
    for group in _groups(published.keys, 3):
        table = _table("", 24)
        for key in group:
            table.add_column(escape(visible(published.heads[key])), justify="right")
        table.add_column("source", overflow="fold")
        for line in published.lines:
            cells = [Text(visible(line.cells.get(key, ""))) for key in group]
            style = "bold" if line.ours else ""
            table.add_row(Text(visible(line.name), style=style), *cells, Text(visible(line.source)))
        console.print(table)
    for note in published.notes:
        _say(console, visible(note), "dim")


def _groups(keys: Sequence[str], size: int) -> list[Sequence[str]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)] or [()]


def _print_not_computed(console: Console, evaluation: Evaluation) -> None:
    if evaluation.not_computed:
        _say(console, "\nNot computed", "bold")
    for one in evaluation.not_computed:
        _say(console, f"{visible(one.metric)}: {visible(one.reason)}", "yellow")
        for line in one.detail.splitlines():
            _say(console, f"  {visible(line)}")


def _print_failures(console: Console, evaluation: Evaluation) -> None:
    groups = failure_groups(evaluation)
    if not groups:
        return
    _say(console, "\nClips that could not be scored", "bold")
    for one in groups:
        reason = f"UNEXPECTED, please report: {one.reason}" if one.unexpected else one.reason
        text = visible(f"{clips_text(one.number)} of {one.method} · {one.metrics} · {reason}")
        _say(console, text, "bold red" if one.unexpected else "")
        _say(console, visible(f"  {one.example}"), "dim")


def _print_mismatches(console: Console, evaluation: Evaluation) -> None:
    sentence = mismatch_sentence(evaluation)
    if sentence:
        _say(console, f"\n{sentence}")
    _list(console, [mismatch_text(one) for one in flagged_mismatches(evaluation)])


def _print_unmatched(console: Console, evaluation: Evaluation) -> None:
    if evaluation.unmatched:
        _say(console, f"\nUnmatched: {len(evaluation.unmatched):,}", "bold")
    _list(console, [unmatched_text(one) for one in evaluation.unmatched])


def _list(console: Console, lines: Sequence[str]) -> None:
    for line in lines[:MOST_LISTED]:
        _say(console, f"  {visible(line)}", "yellow")
    if len(lines) > MOST_LISTED:
        _say(console, f"  … and {len(lines) - MOST_LISTED:,} more, all in metrics.json")
