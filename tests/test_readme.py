"""The README is true: its Python runs, and its commands exist with the options it shows."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from syncdiff.evaluate.cli import evaluate
from syncdiff.model.cli import run_generate, run_train
from syncdiff.pipeline.cli import app as prep_app

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def single(function: Callable[..., None]) -> typer.Typer:
    app = typer.Typer()
    app.command()(function)
    return app


COMMANDS = {
    "syncdiff-prep": prep_app,
    "syncdiff-train": single(run_train),
    "syncdiff-generate": single(run_generate),
    "syncdiff-eval": single(evaluate),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    found = [line.split(" #")[0].strip() for line in lines]
    return [line for line in found if line.startswith("syncdiff-")]


@pytest.mark.parametrize("line", commands())
def test_a_command_is_understood(line: str) -> None:
    program, *arguments = shlex.split(line)
    command: Any = typer.main.get_command(COMMANDS[program])
    context = click.Context(command, info_name=program)
    while hasattr(command, "commands"):
        name, command, arguments = command.resolve_command(context, arguments)
        assert command is not None, f"no command {name}"
        context = click.Context(command, info_name=name, parent=context)
    with contextlib.suppress(typer.Exit):  # options that only show something end the command
        command.make_context(command.name, list(arguments), parent=context)


def test_every_make_target_exists() -> None:
    makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_python_runs(prepared_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("polars", "duckdb", "datasets"):
        pytest.importorskip(module)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sample").symlink_to(prepared_sample)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    names: dict[str, Any] = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)
    assert names["faces"].shape[0] == 2 and names["sound"].shape == (3200,)
    assert names["window"].shape == (16, 80)
    assert len(names["sharpest"]) == 3 and names["train"].num_rows == len(names["dataset"])
