"""`syncdiff-train` and `syncdiff-generate`."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from syncdiff.model.config import load_config
from syncdiff.pipeline import console as show
from syncdiff.pipeline.config import ConfigError, find_config
from syncdiff.pipeline.plan import PlanError
from syncdiff.pipeline.records import CheckpointError, ClipError, RunError
from syncdiff.pipeline.store.paths import StoreError

# PyTorch and diffusers take seconds to import; what needs them is imported where a command begins its work,
# so that help and mistakes are answered at once.

TRAIN_HELP = """Train SyncDiff from a prepared data set.

[bold]syncdiff-train train-tiny.yaml --data data/sample --out runs/tiny[/] — a toy

[bold]syncdiff-train train-lrs2.yaml --data data/lrs2 --out runs/lrs2[/] — on a GPU

[bold]syncdiff-train my.yaml --data data/lrs2 --out runs/mel --set model.audio.features=mel[/]

[bold]accelerate launch -m syncdiff.model.cli train-lrs2.yaml --data data/lrs2 --out runs/lrs2[/]

The same command goes on where it was stopped; Ctrl-C and SIGTERM save first. Watch it with
[bold]tensorboard --logdir runs[/], too.
"""

GENERATE_HELP = """Make videos with a trained model: whole splits of a data set, or one video with one sound.

[bold]syncdiff-generate --checkpoint runs/tiny --data data/sample --split test --out results/tiny[/]

[bold]syncdiff-generate --checkpoint runs/lrs2 --data data/lrs2 --raw /raw/lrs2 --out results/full[/]

[bold]syncdiff-generate --checkpoint runs/lrs2 --data data/lrs2 --pairs list.txt --out results/unsynced[/]

[bold]syncdiff-generate --checkpoint runs/lrs2 --video speaker.mp4 --audio speech.wav --out dubbed.mp4[/]

Whole splits: the folder is what syncdiff-eval takes, and the same command makes what is missing. With --raw
(the data set as it was before syncdiff-prep) faces are pasted back into the full frames; without it the
videos show the face crop. --mode cross gives every clip the sound of another, --mode silent gives silence:
lips that open then follow the picture, not the sound (syncdiff-eval --protocol silent).

One video: the result lasts as long as the speech. A longer video is cut; a shorter one runs backwards from
its end and forwards again. Its size and frame rate stay.
"""


def run_train(
    config: Annotated[Path, typer.Argument(help="YAML file, or the name of one that comes with the package")],
    data: Annotated[str | None, typer.Option(help="Prepared data set.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for checkpoints, logs and sample strips.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps, instead of the configuration's.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: optim.lr=1e-4")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Start again: remove the run that is in --out.")] = False,
) -> None:
    """The body of `syncdiff-train`; its help is TRAIN_HELP."""
    overrides = list(settings or [])
    overrides += [] if steps is None else [f"optim.steps={steps}"]
    chosen = load_config(find_config(config), overrides)
    chosen = replace(chosen, data=data or chosen.data, out=out or chosen.out)
    from syncdiff.model.train import train
    from syncdiff.model.training_run import start_again

    console = Console(stderr=True)
    if overwrite and chosen.out is not None:
        start_again(Path(chosen.out))
    last = train(chosen, lambda text: console.print(text, markup=False, highlight=False))
    typer.echo(f"checkpoint: {last}")


def run_generate(
    checkpoint: Annotated[
        Path, typer.Option(help="A checkpoint, or the run that holds it (then the newest).")
    ],
    out: Annotated[Path, typer.Option(help="Folder of results, or with --video the file to write.")],
    data: Annotated[Path | None, typer.Option(help="Prepared data set.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of it; all by default.")] = None,
    mode: Annotated[
        Literal["reconstruction", "cross", "silent"],
        typer.Option(help="Each clip with its own sound, with another's, or with silence."),
    ] = "reconstruction",
    pairs: Annotated[Path | None, typer.Option(help="List of lines: sound clip, video clip.")] = None,
    raw: Annotated[
        Path | None, typer.Option(help="The raw data set, to paste faces into full frames.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many clips.")] = None,
    video: Annotated[Path | None, typer.Option(help="A video whose speaker is to be redrawn.")] = None,
    audio: Annotated[Path | None, typer.Option(help="The speech; by default the video's own.")] = None,
    avhubert: Annotated[
        Path | None,
        typer.Option(help="With --video or --mode silent: the AV-HuBERT checkpoint of the model's features."),
    ] = None,
    sampler: Annotated[Literal["ddim", "dpm++"] | None, typer.Option(help="Solver.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Scale of guidance on the sound; 1 is none.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Frames made at once; by default 32 on a GPU, 8 on a CPU.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
) -> None:
    """The body of `syncdiff-generate`; its help is GENERATE_HELP."""
    if (data is None) == (video is None):
        raise ConfigError("give either --data (whole splits) or --video (one clip)")
    if mode == "silent" and (audio is not None or pairs is not None):
        raise ConfigError("--mode silent drives with silence: leave out --audio and --pairs")
    from syncdiff.model.checkpoint import find
    from syncdiff.model.generate import load_model
    from syncdiff.model.generate_split import generate_results, make_pairs
    from syncdiff.model.generate_video import dub
    from syncdiff.pipeline.store.read import open_dataset

    model = load_model(checkpoint, device, sampler=sampler, sampling_steps=steps, guidance=guidance)
    size = batch or (32 if model.device.type == "cuda" else 8)
    started = time.perf_counter()
    if video is not None:
        written = dub(model, video, audio, out, size, typer.echo, avhubert, silent=mode == "silent")
        typer.echo(f"{written.path}: {written.frames} frames, {written.redrawn} with a redrawn mouth")
        frames = written.frames
    else:
        assert data is not None
        dataset = open_dataset(data, split)
        chosen, outcome = make_pairs(dataset, "pairs" if pairs else mode, pairs)
        settings = {  # what all videos of a folder have in common
            "checkpoint": str(find(checkpoint)),
            "step": model.step,
            "sampler": model.diffusion.sampler,
            "sampling_steps": model.diffusion.sampling_steps,
            "guidance": model.diffusion.guidance,
            "pairs": str(pairs or mode),
        }
        chosen = chosen[:limit]
        with show.Meter(Console(stderr=True), len(chosen)) as meter:
            generate_results(
                model, dataset, chosen, outcome, out, raw, size, settings, typer.echo, meter, avhubert
            )
        frames = outcome.frames
        for name, reason in outcome.left_out:
            typer.echo(f"left out: {name}: {reason}", err=True)
        typer.echo(
            f"{out}: {outcome.generated} made, {outcome.existing} were there, "
            f"{len(outcome.left_out)} left out"
        )
        if not outcome.generated and not outcome.existing:
            raise RunError("nothing could be made")
    typer.echo(_speed(frames, time.perf_counter() - started))


def _speed(frames: int, seconds: float) -> str:
    import torch

    kib_per_unit = 1 if sys.platform != "darwin" else 1 / 1024  # ru_maxrss counts KiB, on macOS bytes
    memory_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kib_per_unit / 2**20
    gpu_gib = torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else 0
    return (
        f"{frames} frames in {seconds:.1f} s: {frames / seconds:.1f} frames/s; memory {memory_gib:.1f} GiB"
        + (f", GPU {gpu_gib:.1f} GiB" if gpu_gib else "")
    )


def _main(command: Callable[..., None], text: str) -> None:
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command(help=text, context_settings={"help_option_names": ["-h", "--help"]})(command)
    show.run_command(
        app,
        usage=(ConfigError, PlanError, StoreError),
        failures=(CheckpointError, ClipError, RunError, OSError),
        interrupted="stopped; the same command continues",
    )


def train_main() -> None:
    """Entry point of `syncdiff-train`."""
    _main(run_train, TRAIN_HELP)


def generate_main() -> None:
    """Entry point of `syncdiff-generate`."""
    _main(run_generate, GENERATE_HELP)


if __name__ == "__main__":  # for `accelerate launch -m`
    train_main()
