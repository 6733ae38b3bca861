from __future__ import annotations

import re
from pathlib import Path

from syncdiff.evaluate.report.markdown_latex import escape_latex, escape_markdown


def test_latex_and_markdown_escapes() -> None:
    assert escape_latex(r"a_b\c{%}$&#~^") == (
        r"a\_b\textbackslash{}c\{\%\}\$\&\#\textasciitilde{}\textasciicircum{}"
    )
    assert escape_markdown("a|b_c*<x>\n") == r"a\|b\_c\*\<x\>\\n"


def test_hostile_names_in_latex_and_markdown(written: Path) -> None:
    tex = (written / "table.tex").read_text("utf-8")
    assert tex.count(r"\begin{table}") == tex.count(r"\end{table}") >= 5
    assert r"\textless{}script\textgreater{}" in tex and "\\toprule" in tex
    body = re.sub(r"(?m)^%.*$", "", tex)
    assert not re.search(r"(?<!\\)[%#]", body)
    markdown = (written / "table.md").read_text("utf-8")
    assert not re.search(r"(?<!\\)<", markdown)
    widths = {}
    for line in markdown.splitlines():
        if line.startswith("|"):
            widths.setdefault(len(re.findall(r"(?<!\\)\|", line)), line)
    assert len(re.findall(r"(?m)^\|", markdown)) > 10 and min(widths) >= 4
