"""The command `syncdiff-prep`: raw data sets in, shards out. The tools beside it are in `commands`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from syncdiff.pipeline import console as show
from syncdiff.pipeline.commands.features import (
    add_features,
    avhubert_loader,
    load_or_exit,
    recorded_loader,
    say_what_is_missing,
)
from syncdiff.pipeline.commands.tools import add_tools
from syncdiff.pipeline.config import ConfigError, with_settings
from syncdiff.pipeline.datasets.base import LayoutError
from syncdiff.pipeline.datasets.listing import LAYOUTS, Listing, read_layout
from syncdiff.pipeline.estimate import estimate
from syncdiff.pipeline.features.builtin import write_extractor_files
from syncdiff.pipeline.plan import PlanError, RunIdentity, plan_shards
from syncdiff.pipeline.prep_config import PrepConfig, load_config
from syncdiff.pipeline.ray_start import connect
from syncdiff.pipeline.records import CheckpointError, ClipError, RunError
from syncdiff.pipeline.store.manifest import earlier_identity, versions
from syncdiff.pipeline.store.parquet import open_parquet
from syncdiff.pipeline.store.paths import StoreError, StorePaths, read_json
from syncdiff.pipeline.store.prep_run import PrepRun, check_apart
from syncdiff.pipeline.store.verify import forget, verify
from syncdiff.pipeline.store.write import write_atomic
from syncdiff.pipeline.weights.published import WeightsError

app = typer.Typer(
    name="syncdiff-prep",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Turn a raw talking-face data set into training-ready Parquet shards.

**First steps** (no data needed):

`syncdiff-prep sample data/sample-raw` — write a small data set with known synchrony

`syncdiff-prep lrs2 data/sample-raw --out data/sample` — prepare it

`syncdiff-prep inspect data/sample` — look at what came out
""",
)
out = Console()
err = Console(stderr=True)

_ABOUT = {
    "lrs2": "LRS2 (`mvlrs_v1/{main,pretrain}/<speaker>/<clip>.mp4`, lists train/val/test/pretrain.txt)",
    "lrs3": "LRS3 (`{pretrain,trainval,test}/<id>/<clip>.mp4`)",
    "voxceleb2": "VoxCeleb2 (`{dev,test}/mp4/<id>/<video>/<clip>.mp4`)",
    "hdtf": "HDTF (`<name>.mp4`)",
    "grid": "GRID (`s<k>/video/<code>.mpg`, `align/<code>.align`)",
    "folder": "any folder tree of videos",
}


def main() -> None:
    """Entry point: declared failures end with a sentence and an exit code, not with a traceback."""
    show.run_command(
        app,
        usage=(LayoutError, ConfigError, PlanError, StoreError, WeightsError),
        failures=(CheckpointError, ClipError, RunError, OSError),
        interrupted="stopped; finished shards are kept, and the same command continues",
    )


def prepare(
    context: typer.Context,
    raw: Annotated[Path, typer.Argument(help="Folder of the raw data set; only read, never changed.")],
    out_dir: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the data set goes.  [default: data/LAYOUT]")
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; may be repeated.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A YAML file over the defaults of configs/LAYOUT.yaml.")
    ] = None,
    tracker: Annotated[str | None, typer.Option(help="Face tracker: dlib or face-alignment.")] = None,
    face_size: Annotated[int | None, typer.Option(help="Side of the face crops in pixels.")] = None,
    all_faces: Annotated[
        bool | None, typer.Option("--all-faces", help="Keep every face, not only the speaker's.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.  [default: all cores]")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="A running Ray cluster, such as auto or ray://head:10001.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--avhubert", help="AV-HuBERT checkpoint: adds its features (more: `features avhubert`)."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N clips.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, time and size; write nothing.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start again where --out holds a data set.")
    ] = False,
    retry_rejects: Annotated[
        bool, typer.Option("--retry-rejects", help="Try rejected inputs again.")
    ] = False,
) -> None:
    layout = str(context.info_name)
    flags = {"tracker": tracker, "face_size_px": face_size, "all_faces": all_faces}
    settings = load_config(layout, config, {k: v for k, v in flags.items() if v is not None})
    inputs = {"raw": str(raw.resolve()), "splits": split or None, "limit": limit}
    listing = _list(layout, inputs)
    _announce(listing)
    if dry_run:
        cores = workers or show.available_cores()
        guess = estimate(listing.layout, listing.root, listing.clips, settings)
        time, size = show.duration_text(guess.core_s / cores), show.bytes_text(guess.bytes)
        for line in (
            f"measured {guess.measured} clips, {guess.failed} of them would be rejected",
            f"expected: {guess.hours:.2f} hours of rows, {time} on {cores} cores, {size} of shards",
            f"{len(listing.rejects):,} inputs are rejected by the listing already",
        ):
            out.print(line, highlight=False)
        return
    root = out_dir or Path("data") / layout
    check_apart(root, raw)
    load = None if checkpoint is None else avhubert_loader(checkpoint)
    if load is not None:
        load_or_exit(load)  # a wrong file must show before the first clip, not after the last
    manifest = _prepare(listing, settings, root, inputs, workers, ray_address, overwrite, retry_rejects)
    _summary(root, manifest)
    if load is not None:
        add_features(root, load, workers, 0.0, ray_address)
    elif not any(name.startswith("avhubert") for name in manifest["features"]):
        say_what_is_missing(root)


_EXAMPLES = """Prepare {about}.

Running the same command again continues where it stopped.

Examples:

`syncdiff-prep {layout} /raw/{layout}` — all of it, on all cores, into data/{layout}

`syncdiff-prep {layout} /raw/{layout} --dry-run` — how many clips, how long, how large

`syncdiff-prep {layout} /raw/{layout} --limit 100 --out data/try` — a first try
"""

for _layout in LAYOUTS:
    app.command(
        _layout,
        rich_help_panel="Prepare a data set",
        short_help=_ABOUT[_layout],
        help=_EXAMPLES.format(about=_ABOUT[_layout], layout=_layout),
    )(prepare)
add_tools(app)


@app.command("verify", rich_help_panel="Look at a data set")
def verify_command(
    data: Annotated[Path, typer.Argument(help="A prepared data set.")],
    repair: Annotated[bool, typer.Option("--repair", help="Make again what is damaged or missing.")] = False,
    raw: Annotated[
        Path | None, typer.Option(help="With --repair: the raw data set, where it has moved since.")
    ] = None,
) -> None:
    """Check every file against its recorded hash and schema, and features row by row against clips.

    Examples:

    `syncdiff-prep verify data/lrs2`

    `syncdiff-prep verify data/lrs2 --repair` — make the files that fail again, from the raw data set
    """
    failed = _check(data)
    if failed and repair:
        _repair(data, failed, raw)
        failed = _check(data)
    elif failed:
        out.print(
            f"mend it: syncdiff-prep verify {escape(str(data))} --repair", highlight=False, soft_wrap=True
        )
    if failed:
        sys.exit(show.FAILED)


def _check(data: Path) -> set[str]:
    """Verify a data set, say what is wrong, and return the names of the files that are."""
    failed, checked = set(), 0
    try:
        for name, problems in verify(data):
            checked += 1
            for problem in problems:
                failed.add(name)
                out.print(f"[red]{escape(name)}[/]: {escape(problem)}", highlight=False, soft_wrap=True)
    except StoreError as error:
        if not StorePaths(data).done.is_dir():
            raise
        out.print(f"[red]dataset.json[/]: {escape(str(error))}", highlight=False, soft_wrap=True)
        return {"dataset.json"}
    out.print(f"{len(failed)} of {checked} checks failed" if failed else f"{checked} checks, all well")
    return failed


def _repair(data: Path, failed: set[str], raw: Path | None) -> None:
    """Make the files that failed again, from the raw data set and with the settings that are on record."""
    paths = StorePaths(data)
    identity = earlier_identity(paths)
    if identity is None:
        raise StoreError(f"{data} cannot be mended: nothing says how it was made; prepare it again")
    inputs: dict[str, Any] = {"splits": None, "limit": None}
    if paths.inputs.is_file():
        inputs = read_json(paths.inputs)
    if raw is not None:
        inputs["raw"] = str(raw.resolve())
    if "raw" not in inputs:
        raise StoreError(f"{data}: where its raw data set lies is not on record; give --raw")
    listing = _list(identity["layout"], inputs)
    config = with_settings(PrepConfig(), identity["config"], str(paths.identity))
    added = forget(data, failed)
    _prepare(listing, config, data, inputs)
    for extractor_id in added:
        if (load := recorded_loader(paths, extractor_id)) is not None:
            add_features(data, load)
            continue
        out.print(
            f"features {escape(extractor_id)}: run the command that added them; it makes what is missing",
            highlight=False,
        )


def _list(layout: str, inputs: dict[str, Any]) -> Listing:
    """The clips of `raw`, of all or some `splits`, at most `limit`."""
    listing = read_layout(layout, Path(inputs["raw"]), splits=inputs["splits"])
    return replace(listing, clips=listing.clips[: inputs["limit"]]) if inputs["limit"] else listing


def _announce(listing: Listing) -> None:
    splits = Counter(clip.split for clip in listing.clips)
    parts = ", ".join(f"{name} {number:,}" for name, number in sorted(splits.items()))
    out.print(f"{listing.layout}: {len(listing.clips):,} clips ({parts or 'none'})", highlight=False)
    for note in listing.notes:
        out.print(f"note: {escape(note)}", highlight=False, soft_wrap=True)


def _prepare(
    listing: Listing,
    config: PrepConfig,
    root: Path,
    inputs: dict[str, Any],
    workers: int | None = None,
    ray_address: str | None = None,
    overwrite: bool = False,
    retry_rejects: bool = False,
) -> dict[str, Any]:
    plans = plan_shards(listing.clips, config.clips_per_shard)
    identity = RunIdentity.of(
        listing.layout, config.to_dict(), versions(), listing.clips, len(listing.rejects)
    )
    run = PrepRun(root, identity, plans)
    if overwrite:  # what is wrong with the cluster must show before anything is removed
        connect(workers or show.available_cores(), ray_address)
    with run.started(overwrite=overwrite):
        write_atomic(run.paths.inputs, json.dumps(inputs).encode())
        reasons = run.todo(retry_rejects=retry_rejects)
        for reason in (reason for shard in reasons.values() for reason in shard):
            out.print(f"made again: {escape(reason)}", highlight=False, soft_wrap=True)
        todo = [plan for plan in plans if plan.name in reasons]
        if todo:
            connect(workers or show.available_cores(), ray_address)
            from syncdiff.pipeline.run_ray import prepare_shards  # imports Ray: after `connect`

            clips_todo = sum(len(plan.clips) for plan in todo)
            if kept := len(listing.clips) - clips_todo:
                out.print(f"{kept:,} clips are prepared already; {len(todo)} shards to go", highlight=False)
            run.remove_manifest()
            with show.Meter(out, clips_todo) as meter:
                prepare_shards(
                    run,
                    todo,
                    listing.layout,
                    listing.root,
                    config,
                    lambda p: meter.show(p.clips, p.frames, p.rejects.total()),
                )
        elif not run.paths.manifest.is_file():
            out.print("all shards are there already", highlight=False)
        write_extractor_files(run.paths, config.features)
        return run.finish(listing.rejects)


def _summary(root: Path, manifest: dict[str, Any]) -> None:
    show.print_counts(out, manifest)
    with open_parquet(root / "rejects.parquet") as file:
        show.print_rejects(out, file.read().to_pylist())
    counts = manifest["counts"]["splits"].values()
    inputs, prepared, rejected = (sum(c[k] for c in counts) for k in ("inputs", "prepared", "rejects"))
    out.print(
        f"{inputs:,} inputs = {prepared:,} prepared + {rejected:,} rejected", style="bold", highlight=False
    )
    if not prepared:
        out.print("[bold red]no input gave a row[/]; the reasons are above")
    out.print(f"data set: {escape(str(root))}   look at it: syncdiff-prep inspect {escape(str(root))}")
