"""Commands of `syncdiff-prep` beside preparation: sample, doctor, inspect, weights; features, export join."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from syncdiff.pipeline import console as show
from syncdiff.pipeline.commands.export import export_app
from syncdiff.pipeline.commands.features import features_app
from syncdiff.pipeline.report.inspect import print_summary, write_report
from syncdiff.pipeline.report.summary import summarise
from syncdiff.pipeline.sample.dataset import make_sample
from syncdiff.pipeline.store.read import open_dataset
from syncdiff.pipeline.weights.published import entry_named, fetch, how_to_get, require, status

out = Console()

Data = Annotated[Path, typer.Argument(help="A prepared data set.")]

weights_app = typer.Typer(no_args_is_help=True, help="Published weights: list, fetch, verify, convert.")


def add_tools(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.command("sample", rich_help_panel="First steps")(sample)
    app.command("doctor", rich_help_panel="First steps")(doctor)
    app.command("inspect", rich_help_panel="Look at a data set")(inspect)
    app.add_typer(features_app, name="features", rich_help_panel="Use a data set")
    app.add_typer(export_app, name="export", rich_help_panel="Use a data set")
    app.add_typer(weights_app, name="weights", rich_help_panel="Weights")


def sample(
    folder: Annotated[Path, typer.Argument(help="Where the raw sample data set goes.")],
    train_clips: Annotated[int, typer.Option(min=1, help="Training clips for each of the two speakers.")] = 5,
) -> None:
    """Write a small data set in LRS2 layout whose audio-visual synchrony is known.

    A speaker in a car and an animated portrait, from material inside Python packages, with synthesised sound
    whose loudness follows the mouth (true lag 0); one clip is broken on purpose.

    Example: `syncdiff-prep sample data/sample-raw`
    """
    written = make_sample(folder, train_clips=train_clips)
    out.print(f"sample data set: {escape(str(written))}", highlight=False, soft_wrap=True)
    out.print(f"prepare it: syncdiff-prep lrs2 {escape(str(folder))} --out data/sample", highlight=False)


def doctor(
    out_dir: Annotated[
        Path, typer.Option("--out", "-o", help="Where a data set is to be written; its disk is looked at.")
    ] = Path("data"),
    constraints: Annotated[
        Path | None, typer.Option(help="Versions to compare with.  [default: constraints.txt of the source]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Look at machine, packages, ffmpeg, GPU, weights, disk and Ray, and say what to do about each problem.

    Exit code 1 when something must be mended before anything works; a warning is no failure.

    Example: `syncdiff-prep doctor --out /data/lrs2`
    """
    from syncdiff.pipeline.doctor.machine import machine_findings
    from syncdiff.pipeline.doctor.software import software_findings

    findings = [*machine_findings(out_dir), *software_findings(constraints)]
    if as_json:
        rows = [asdict(finding) for finding in findings]
        out.print(json.dumps(rows, indent=2), markup=False, highlight=False, soft_wrap=True)
    else:
        table = Table("", "", "", "what is here, and what to do", title_justify="left")
        for finding in findings:
            colour = {"ok": "green", "warn": "yellow", "fail": "bold red"}[finding.state]
            text = escape(finding.detail) + (f"\n[bold]{escape(finding.advice)}[/]" if finding.advice else "")
            table.add_row(finding.topic, escape(finding.name), f"[{colour}]{finding.state}[/]", text)
        out.print(table, highlight=False)
        counts = Counter(finding.state for finding in findings)
        out.print(", ".join(f"{counts[state]} {state}" for state in ("ok", "warn", "fail")), highlight=False)
    if any(finding.state == "fail" for finding in findings):
        sys.exit(show.FAILED)


def inspect(
    data: Data,
    sheets: Annotated[int, typer.Option(min=0, help="Clips shown in the contact sheets.")] = 24,
) -> None:
    """Show what a data set holds, and write report/index.html with charts and contact sheets.

    Example: `syncdiff-prep inspect data/lrs2`
    """
    summary = summarise(open_dataset(data))
    print_summary(out, summary)
    report = write_report(data, sheets=sheets, summary=summary)
    out.print(f"report: {escape(str(report))}", highlight=False, soft_wrap=True)


@weights_app.command("list")
def weights_list(
    check: Annotated[bool, typer.Option("--check", help="Hash the files that are here.")] = False,
) -> None:
    """What weights are known, what they are for, under which licence, and which are here."""
    for line in status(check=check):
        entry = line.entry
        colour = {"missing": "yellow", "differs": "red"}.get(line.state, "green")
        out.print(f"[bold]{entry.name}[/]  {entry.file}  [{colour}]{line.state}[/]", highlight=False)
        out.print(f"    for {entry.used_by}; {entry.licence}", highlight=False, style="dim")
    out.print(
        "fetch one: syncdiff-prep weights fetch NAME    look in a folder: export SYNCDIFF_WEIGHTS=FOLDER"
    )


@weights_app.command("fetch")
def weights_fetch(name: Annotated[str, typer.Argument(help="A name from `weights list`.")]) -> None:
    """Download one file and check it against its published hash.

    Example: `syncdiff-prep weights fetch syncnet`
    """
    entry = entry_named(name)
    size = "" if entry.size_bytes is None else f" ({show.bytes_text(entry.size_bytes)})"
    out.print(f"{entry.file}{size}: {entry.licence}; published at {entry.published_at}", highlight=False)
    file = fetch(entry, progressbar=True)
    state = "verified" if file.verified else f"not verified, its sha256 is {file.sha256}"
    out.print(f"{file.path}: {state}", highlight=False, soft_wrap=True)


@weights_app.command("verify")
def weights_verify(name: Annotated[str, typer.Argument(help="A name from `weights list`.")]) -> None:
    """Check a file that is here against its published hash."""
    file = require(name, allow_unverified=True)
    if file.entry.sha256 is None:
        out.print(f"{file.path}: no hash is published to compare with; its sha256 is {file.sha256}")
    elif file.verified:
        out.print(f"{file.path}: verified")
    else:
        out.print(f"{file.path}: [red]not the published file[/]\n{escape(how_to_get(file.entry))}")
        sys.exit(show.FAILED)


@weights_app.command("convert")
def weights_convert(
    checkpoint: Annotated[Path, typer.Argument(help="An AV-HuBERT checkpoint of fairseq (.pt).")],
    target: Annotated[Path | None, typer.Argument(help="[default: beside it, .safetensors]")] = None,
) -> None:
    """Write a checkpoint as .safetensors with its configuration: loads faster, and is preferred from then on.

    Nothing in the checkpoint is executed. Example: `syncdiff-prep weights convert large_vox_iter5.pt`
    """
    from syncdiff.pipeline.avhubert.checkpoint import convert

    written = convert(checkpoint, target)
    out.print(f"written: {escape(str(written))}", highlight=False, soft_wrap=True)


@weights_app.command("untrained")
def weights_untrained(
    target: Annotated[Path, typer.Argument(help="File to write, .safetensors.")],
    lip_reader: Annotated[
        bool, typer.Option("--lip-reader", help="With a decoder, as for syncdiff-eval --lip-reader.")
    ] = False,
) -> None:
    """Write a tiny AV-HuBERT with random weights, to try the whole path without the published ones.

    Its features mean nothing, and everything made with them says so.
    """
    from syncdiff.pipeline.avhubert.untrained import make_tiny_checkpoint, make_tiny_lip_reader

    target.parent.mkdir(parents=True, exist_ok=True)
    written = (make_tiny_lip_reader if lip_reader else make_tiny_checkpoint)(target)
    out.print(f"untrained checkpoint: {escape(str(written))}", highlight=False, soft_wrap=True)
