"""Reasons of rejects, each with advice."""

from __future__ import annotations

import ast
from pathlib import Path

import syncdiff.pipeline
from syncdiff.pipeline.records import _OTHERWISE, advice


def test_every_reason_has_advice() -> None:
    package = Path(syncdiff.pipeline.__file__).parent
    reasons = {r for file in package.rglob("*.py") for r in reasons_in(ast.parse(file.read_text("utf-8")))}
    assert {"no-face", "truncated", "outside-root", "broken-symlink", "internal-error"} <= reasons
    assert sorted(r for r in reasons if advice(r) == _OTHERWISE) == []


def reasons_in(tree: ast.AST) -> set[str]:
    """Reasons written out where a clip or an input of the listing is given up, by the calls that do it."""
    place = {"ClipError": 1, "Problem": 1, "_problem": -2, "_reject": -2, "_refuse": 0}
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name not in place or len(node.args) <= abs(place[name]):
            continue
        stage, reason = node.args[0], node.args[place[name]]
        other_command = isinstance(stage, ast.Constant) and stage.value in ("sample", "features", "weights")
        if not other_command and isinstance(reason, ast.Constant) and isinstance(reason.value, str):
            found.add(reason.value)
    return found
