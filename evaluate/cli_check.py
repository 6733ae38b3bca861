"""`syncdiff-eval check`: which metrics give the figures that are published for known files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from syncdiff.pipeline import console as show
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.report.render import visible

if TYPE_CHECKING:
    from syncdiff.evaluate.published_checks import Comparison

HELP = """Compare the metrics of this installation with figures that are published for known files.

For each metric it says: reproduces, differs (by what), or not checkable (what is missing, and the command
that gets it). Nothing is downloaded. Exit code 1 when something differs. (A folder of results that is called
`check` is scored as `syncdiff-eval ./check`.)

Examples:

`syncdiff-eval check` — with the weights and files that are here

`syncdiff-eval check --clip example.avi --lpips-pictures imgs/` — SyncNet's clip, LPIPS's three pictures

`syncdiff-eval check --only fid --fid-folders real/ generated/` — FID beside pytorch-fid's command
"""
COLOURS = {"reproduces": "green", "differs": "bold red", "not checkable": "yellow"}


def check(
    clip: Annotated[
        Path | None, typer.Option(help="SyncNet's example.avi.  [default: check/ beside the weights]")
    ] = None,
    lpips_pictures: Annotated[
        Path | None,
        typer.Option(help="Folder of ex_ref.png, ex_p0.png, ex_p1.png.  [default: as --clip]"),
    ] = None,
    fid_folders: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two folders of pictures for FID.  [default: pictures made here]"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this check: lse, lpips, fid, pictures; may be repeated.")
    ] = None,
    expect: Annotated[
        Path | None,
        typer.Option(help="YAML file `metric: {value: number}` of figures in place of the published ones."),
    ] = None,
    unverified_weights: Annotated[
        bool, typer.Option("--unverified-weights", help="Use weights that are not the published; it is said.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    # These bring PyTorch; help should not wait for it.
    from syncdiff.evaluate.published_checks import CHECKS, PUBLISHED, CheckInputs, default_inputs, run_check

    default_clip, default_pictures = default_inputs()
    inputs = CheckInputs(
        clip=clip or default_clip,
        lpips_pictures=lpips_pictures or default_pictures,
        fid_folders=fid_folders,
        expected=PUBLISHED if expect is None else {**PUBLISHED, **_read_expected(expect)},
        unverified_weights=unverified_weights,
    )
    for name in only or ():
        if name not in CHECKS:
            raise ConfigError(f"--only: no check {name!r}; there are {', '.join(CHECKS)}")
    comparisons = [comparison for name in only or CHECKS for comparison in run_check(name, inputs)]
    out = Console()
    if as_json:
        rows = [{**asdict(comparison), "difference": comparison.difference} for comparison in comparisons]
        out.print(json.dumps(rows, indent=2), markup=False, highlight=False, soft_wrap=True)
    else:
        _print(out, comparisons)
    raise typer.Exit(show.FAILED if any(comparison.state == "differs" for comparison in comparisons) else 0)


def _read_expected(path: Path) -> Mapping[str, Mapping[str, float]]:
    """Raises ConfigError."""
    try:
        content: Any = yaml.safe_load(path.read_text("utf-8"))
        return {
            str(metric): {str(value): float(number) for value, number in values.items()}
            for metric, values in content.items()
        }
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: not a file of figures `metric: {{value: number}}`: {error}") from error


def _print(out: Console, comparisons: list[Comparison]) -> None:
    table = Table("metric", "value", title_justify="left")
    for head in ("should be", "is here", "difference", "allowed"):
        table.add_column(head, justify="right")
    table.add_column("")
    for comparison in comparisons:
        numbers = (comparison.expected, comparison.measured, comparison.difference)
        cells = [f"{number:.6g}" if number is not None else "–" for number in numbers]
        allowed = f"{comparison.tolerance:.2g}" if comparison.measured is not None else "–"
        state = f"[{COLOURS[comparison.state]}]{comparison.state}[/]"
        table.add_row(comparison.metric, comparison.value, *cells, allowed, state)
    out.print(table)
    for text in dict.fromkeys(f"{comparison.metric}: {comparison.source}" for comparison in comparisons):
        out.print(escape(text), style="dim", highlight=False)
    for text in dict.fromkeys(
        f"{comparison.metric}: {comparison.note or comparison.detail}" for comparison in comparisons
    ):
        if not text.endswith(": "):
            lines = "\n".join(visible(line) for line in text.splitlines())
            out.print(escape(lines), style="yellow", highlight=False, soft_wrap=True)
