"""The tables for papers and notes: Markdown and LaTeX (booktabs). Texts that came from files are escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from syncdiff.evaluate.records import Evaluation
from syncdiff.evaluate.report.published import PublishedTable
from syncdiff.evaluate.report.tables import (
    VERDICT_RULE,
    MetricTable,
    ReportTables,
    difference_text,
    dropped,
    interval_text,
    is_general,
)
from syncdiff.pipeline.report.render import visible

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&$=-])")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_",
    "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}", "[": "{[}", "]": "{]}", "-": "{-}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\rightarrow$", "−": "$-$", "–": "--", "…": r"\ldots{}",
}  # fmt: skip


def escape_markdown(text: str) -> str:
    """Text that Markdown (also GitHub's) shows as it is: no markup, HTML, table cell or link in it."""
    return _MARKDOWN.sub(r"\\\1", visible(text)).replace("://", ":\u200b//").replace("@", "@\u200b")


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in visible(text))


def markdown(evaluation: Evaluation, results: ReportTables, published: PublishedTable | None) -> str:
    """All tables, one a metric, with what must be known of each below it."""
    lines = ["# Evaluation", ""]
    for block in results.blocks:
        heads = ["method", *(column.head for column in block.columns), "scored", "dropped"]
        lines += _markdown_table(heads, _rows(block, "**{}**", escape_markdown, "{} {}"), first_left=1)
        lines += [f"{escape_markdown(note)}  " for note in block.notes] + [""]
    if results.differences:
        lines += [f"## Difference from {escape_markdown(str(results.baseline))}", ""]
        rows = []
        for one in results.differences:
            cells = [one.method, one.column.head, difference_text(one), str(one.interval.clips), one.verdict]
            rows.append([escape_markdown(cell) for cell in cells])
        heads = ["method", "value", "difference [95 %]", "clips", ""]
        lines += _markdown_table(heads, rows, first_left=2)
        protocol = " ".join(_protocol_notes(results))
        lines += [
            escape_markdown(f"Clip by clip, over the clips that both have. {VERDICT_RULE} {protocol}"),
            "",
        ]
    if published is not None:
        lines += [f"## Published figures, {escape_markdown(published.dataset)}", ""]
        heads = ["", *(published.heads[key] for key in published.keys), "source"]
        lines += _markdown_table(heads, _published_rows(published, escape_markdown), first_left=1)
        lines += [f"{escape_markdown(note)}  " for note in published.notes] + [""]
    if evaluation.not_computed:
        lines += ["## Not computed", ""]
        for left_out in evaluation.not_computed:
            text = f"{left_out.metric}: {left_out.reason}: {' '.join(left_out.detail.split())}"
            lines.append(f"- {escape_markdown(text)}")
        lines.append("")
    lines += [f"{escape_markdown(note)}  " for note in evaluation.notes]
    return "\n".join(lines).rstrip() + "\n"


def _rows(
    block: MetricTable, bold: str, escape: Callable[[str], str], with_interval: str
) -> Iterable[list[str]]:
    for method in block.methods:
        cells = [escape(method)]
        for column in block.columns:
            mean, interval = interval_text(column, block.cells[method, column.key].shared)
            text = escape(mean)
            if block.best.get(column.key) == method:
                text = bold.format(text)
            cells.append(with_interval.format(text, escape(interval)) if interval else text)
        coverage = block.coverage(method)
        yield [*cells, str(coverage.scored), str(dropped(coverage))]


def _markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], first_left: int) -> list[str]:
    rule = [":--" if index < first_left else "--:" for index in range(len(heads))]
    table = [[escape_markdown(head) for head in heads], rule, *rows]
    return ["| " + " | ".join(row) + " |" for row in table] + [""]


def _published_rows(published: PublishedTable, escape: Callable[[str], str]) -> list[list[str]]:
    return [
        [escape(line.name), *(escape(line.cells.get(key, "")) for key in published.keys), escape(line.source)]
        for line in published.lines
    ]


def latex(evaluation: Evaluation, results: ReportTables, published: PublishedTable | None) -> str:
    """`table` environments, one a metric, for `\\input`. Needs the package booktabs."""
    parts = ["% Needs \\usepackage{booktabs} and \\usepackage{textcomp}.", ""]
    for number, block in enumerate(results.blocks):
        heads = ["method", *(column.head for column in block.columns), "scored", "dropped"]
        rows = _rows(block, r"\textbf{{{}}}", escape_latex, r"{} {{\scriptsize {}}}")
        label = re.sub(r"[^a-z0-9]+", "-", block.family.lower())
        parts += _latex_table(heads, rows, block.notes, f"{label}-{number + 1}", "l" + "r" * (len(heads) - 1))
    if results.differences:
        rows = []
        for one in results.differences:
            cells = [one.method, one.column.head, difference_text(one), str(one.interval.clips), one.verdict]
            rows.append([escape_latex(cell) for cell in cells])
        about = f"Difference from {results.baseline}, clip by clip, over the clips that both have."
        notes = [about, VERDICT_RULE]
        heads = ["method", "value", "difference [95 %]", "clips", ""]
        parts += _latex_table(heads, rows, [*notes, *_protocol_notes(results)], "differences", "llrrl")
    if published is not None:
        heads = ["", *(published.heads[key] for key in published.keys), "source"]
        columns = "l" + "r" * len(published.keys) + "l"
        rows = _published_rows(published, escape_latex)
        parts += _latex_table(heads, rows, published.notes, "published", columns)
    parts += [
        f"% {visible(one.metric)} was not computed: {visible(one.reason)}" for one in evaluation.not_computed
    ]
    return "\n".join(parts).rstrip() + "\n"


def _protocol_notes(results: ReportTables) -> list[str]:
    """Of all blocks: the protocol once, and whatever names unverified weights."""
    found = dict.fromkeys(n for b in results.blocks for n in b.notes if is_general(n))
    return list(found)


def _latex_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], notes: Sequence[str], label: str, columns: str
) -> list[str]:
    return [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(' '.join(notes))}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(escape_latex, heads)) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ]
