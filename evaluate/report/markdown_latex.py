"""The tables for papers and notes: Markdown and LaTeX (booktabs). Texts that came from files are escaped."""

from __future__ import annotations

import re

from syncdiff.evaluate.records import Evaluation
from syncdiff.evaluate.report.published import PublishedTable
from syncdiff.evaluate.report.tables import ReportTables
from syncdiff.evaluate.report.text_tables import (
    TextCell,
    TextTable,
    difference_table,
    figure_table,
    published_text,
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
    for table in _tables(results, published):
        if table.title:
            lines += [f"## {escape_markdown(table.title)}", ""]
        left = len(table.align) - len(table.align.lstrip("l"))
        rule = [":--"] * left + ["--:"] * (len(table.heads) - left)
        rows = [map(escape_markdown, table.heads), rule, *(map(_markdown_cell, row) for row in table.rows)]
        lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
        if table.about:
            lines.append(escape_markdown(table.about[0].upper() + table.about[1:]))
        lines += [f"{escape_markdown(note)}  " for note in table.notes] + [""]
    if evaluation.not_computed:
        lines += ["## Not computed", ""]
        for metric in evaluation.not_computed:
            text = f"{metric.metric}: {metric.reason}: {' '.join(metric.detail.split())}"
            lines.append(f"- {escape_markdown(text)}")
        lines.append("")
    lines += [f"{escape_markdown(note)}  " for note in evaluation.notes]
    return "\n".join(lines).rstrip() + "\n"


def _tables(results: ReportTables, published: PublishedTable | None) -> list[TextTable]:
    tables = [figure_table(block) for block in results.blocks]
    tables += [difference_table(results)] if results.differences else []
    return tables + ([published_text(published)] if published is not None else [])


def _markdown_cell(cell: TextCell) -> str:
    text = escape_markdown(str(cell.text))
    return f"{f'**{text}**' if cell.style == 'best' else text} {escape_markdown(cell.interval)}".rstrip()


def latex(evaluation: Evaluation, results: ReportTables, published: PublishedTable | None) -> str:
    """`table` environments, one a metric, for `\\input`. Needs the package booktabs."""
    lines = ["% Needs \\usepackage{booktabs} and \\usepackage{textcomp}.", ""]
    for number, table in enumerate(_tables(results, published), 1):
        label = re.sub(r"[^a-z0-9]+", "-", table.label) + (
            f"-{number}" if number <= len(results.blocks) else ""
        )
        caption = f"{table.title}, {table.about}" if table.about else " ".join(table.notes)
        lines += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption)}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{{table.align}}}",
            r"\toprule",
            " & ".join(map(escape_latex, table.heads)) + r" \\",
            r"\midrule",
            *(" & ".join(map(_latex_cell, row)) + r" \\" for row in table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    lines += [f"% {visible(m.metric)} was not computed: {visible(m.reason)}" for m in evaluation.not_computed]
    return "\n".join(lines).rstrip() + "\n"


def _latex_cell(cell: TextCell) -> str:
    text = escape_latex(str(cell.text))
    text = rf"\textbf{{{text}}}" if cell.style == "best" else text
    return rf"{text} {{\scriptsize {escape_latex(cell.interval)}}}" if cell.interval else text
