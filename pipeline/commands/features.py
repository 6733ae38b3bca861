"""`syncdiff-prep features`: a trained network's features beside the clips, made once, used by any model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from syncdiff.pipeline import console as show
from syncdiff.pipeline.plugins import EXTRACTORS, load_plugin
from syncdiff.pipeline.ray_start import connect
from syncdiff.pipeline.records import CheckpointError
from syncdiff.pipeline.store.manifest import read_state, write_manifest, write_state
from syncdiff.pipeline.store.paths import StoreError, StorePaths, read_manifest
from syncdiff.pipeline.store.prep_run import locked
from syncdiff.pipeline.weights.published import entry_named

if TYPE_CHECKING:  # PyTorch takes seconds to import; `syncdiff-prep --help` should not
    from syncdiff.pipeline.features.extractor import Extractor


out = Console()
err = Console(stderr=True)

Dtype = Annotated[Literal["float16", "float32"], typer.Option(help="Number type on disk.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes.  [default: all cores]")]
Gpus = Annotated[float, typer.Option(min=0, max=1, help="Share of a GPU for each process; 0: CPU.")]
Address = Annotated[str | None, typer.Option(help="A running Ray cluster.")]
Data = Annotated[Path, typer.Argument(help="A prepared data set.")]

features_app = typer.Typer(
    no_args_is_help=True, help="Add a network's features to a prepared data set; images are not touched."
)


@features_app.command("avhubert")
def avhubert(
    data: Data,
    checkpoint: Annotated[
        Path, typer.Option(help="AV-HuBERT checkpoint (.pt), or a converted .safetensors.")
    ],
    layer: Annotated[str, typer.Option(help="A layer from 1, `final` (normalised), or `all`.")] = "final",
    modality: Annotated[
        Literal["audio", "video", "both"], typer.Option(help="What the network is given.")
    ] = "audio",
    dtype: Dtype = "float16",
    compute: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Number type while computing.")
    ] = "float32",
    workers: Workers = None,
    gpus_per_worker: Gpus = 0.0,
    ray_address: Address = None,
) -> None:
    """AV-HuBERT features at 25 a second.

    Examples:

    `syncdiff-prep features avhubert data/lrs2 --checkpoint large_vox_iter5.pt`

    `syncdiff-prep features avhubert data/lrs2 --checkpoint base_vox_iter5.pt --layer 9 --modality both`
    """
    load = avhubert_loader(checkpoint, modality, layer, dtype, compute, gpus_per_worker)
    add_features(data, load, workers, gpus_per_worker, ray_address)


@features_app.command("speech")
def speech(
    data: Data,
    model: Annotated[
        Path, typer.Option(help="Folder of a saved transformers model (Whisper or wav2vec 2.0).")
    ],
    layer: Annotated[str, typer.Option(help="A hidden layer from 1, or `final`.")] = "final",
    dtype: Dtype = "float16",
    workers: Workers = None,
    gpus_per_worker: Gpus = 0.0,
    ray_address: Address = None,
) -> None:
    """Whisper or wav2vec 2.0 features at 25 a second (needs `pip install 'syncdiff[whisper]'`).

    Example: `syncdiff-prep features speech data/lrs2 --model models/whisper-small`
    """
    load = partial(_load_speech, model.resolve(), layer, dtype, "cuda" if gpus_per_worker else "cpu")
    add_features(data, load, workers, gpus_per_worker, ray_address)


@features_app.command("kmeans")
def kmeans(
    data: Data,
    target: Annotated[Path, typer.Argument(help="The .npz file to write.")],
    features: Annotated[str, typer.Option(help="Stored features to cluster.")] = "avhubert-both-12",
    clusters: Annotated[int, typer.Option(min=2, help="Number of speech units.")] = 200,
    split: Annotated[str | None, typer.Option(help="Learn from this split only.")] = "train",
    share: Annotated[float, typer.Option(min=0.001, max=1, help="Share of the rows to learn from.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the draw of rows and of the first centres.")] = 0,
) -> None:
    """Learn speech units (k-means clusters of features), for `export avhubert` and `export vsp-llm`.

    Example: `syncdiff-prep features kmeans data/lrs3 units/km200.npz --features avhubert-both-12`
    """
    from syncdiff.pipeline.features.kmeans import fit, save
    from syncdiff.pipeline.store.read import open_dataset

    try:
        learned, distance = fit(open_dataset(data, split), features, clusters, share, seed)
    except ValueError as error:
        show.print_error(error)
        sys.exit(show.FAILED)
    save(learned, target)
    out.print(
        f"{escape(str(target))}: {clusters} units, mean squared distance {distance:.4g}", highlight=False
    )


@features_app.command("package")
def package(
    name: Annotated[str, typer.Argument(help="Name under which an installed package brings its extractor.")],
    data: Data,
    workers: Workers = None,
    gpus_per_worker: Gpus = 0.0,
    ray_address: Address = None,
) -> None:
    """Features of an extractor that an installed package brings (entry points `syncdiff.extractors`).

    Example: `syncdiff-prep features package loudness data/lrs2`
    """
    add_features(data, partial(_load_package, name), workers, gpus_per_worker, ray_address)


def _load_package(name: str) -> Extractor:
    extractor: Extractor = load_plugin(EXTRACTORS, name).value()
    return extractor


def avhubert_loader(
    checkpoint: Path,
    modality: Literal["audio", "video", "both"] = "audio",
    layer: str = "final",
    dtype: str = "float16",
    compute: str = "float32",
    gpus_per_worker: float = 0.0,
) -> partial[Extractor]:
    """A function that loads the extractor in whatever process calls it."""
    device = "cuda" if gpus_per_worker else "cpu"
    return partial(_load_avhubert, checkpoint.resolve(), modality, layer, dtype, compute, device)


def _load_avhubert(
    checkpoint: Path,
    modality: Literal["audio", "video", "both"],
    layer: str,
    dtype: str,
    compute: str,
    device: str,
) -> Extractor:
    import torch

    from syncdiff.pipeline.avhubert.extractor import load_avhubert

    torch.set_num_threads(1)  # one process a core
    return load_avhubert(
        checkpoint, modality, _layer(layer), dtype=dtype, compute_dtype=compute, device=device
    )


def _load_speech(model: Path, layer: str, dtype: str, device: str) -> Extractor:
    import torch

    from syncdiff.pipeline.features.whisper import load_speech_model

    torch.set_num_threads(1)
    chosen = _layer(layer)
    if chosen == "all":
        raise typer.BadParameter("`all` is for AV-HuBERT; give one layer")
    return load_speech_model(model, chosen, dtype=dtype, device=device)


_LOADERS: dict[str, Callable[..., Extractor]] = {"avhubert": _load_avhubert, "speech": _load_speech}


def recorded_loader(paths: StorePaths, extractor_id: str) -> partial[Extractor] | None:
    """What loaded an extractor when its features were added; None where that is unknown or not there."""
    try:
        record = read_state(paths.loader(extractor_id))
        load, (source, *settings) = _LOADERS[record["kind"]], record["arguments"]
        return partial(load, Path(source), *settings, "cpu") if Path(source).exists() else None
    except (OSError, StoreError, KeyError, TypeError, ValueError):
        return None


def _layer(text: str) -> int | Literal["final", "all"]:
    if text in ("final", "all"):
        return text  # type: ignore[return-value]
    if not text.isdigit() or int(text) < 1:
        raise typer.BadParameter(f"--layer {text}: give a number from 1, `final` or `all`")
    return int(text)


def load_or_exit(load: Callable[[], Extractor]) -> Extractor:
    """The extractor; a file that it cannot be loaded from ends the command with a sentence."""
    try:
        return load()
    except (CheckpointError, ValueError, ImportError) as error:
        show.print_error(error)
        sys.exit(show.FAILED)


def add_features(
    data: Path,
    load: partial[Extractor],
    workers: int | None = None,
    gpus_per_worker: float = 0.0,
    ray_address: str | None = None,
) -> None:
    """Make what is missing of an extractor's features, then write the manifest anew."""
    from syncdiff.pipeline.features.add_to_store import unfinished_shards

    read_manifest(data)
    extractor = load_or_exit(load)
    if extractor.describe().get("untrained"):
        out.print("[yellow]these weights are untrained stand-ins: the features will mean nothing[/]")
    paths = StorePaths(data)
    with locked(paths):
        shards = unfinished_shards(data, extractor)
        kind = next(kind for kind, function in _LOADERS.items() if function is load.func)
        paths.loader(extractor.id).parent.mkdir(exist_ok=True)
        write_state(paths.loader(extractor.id), {"kind": kind, "arguments": [str(a) for a in load.args[:-1]]})
        if shards:
            connect(workers or show.available_cores(), ray_address)
            from syncdiff.pipeline.run_ray import extract_shards  # imports Ray: after `connect`

            with show.Meter(out, len(shards), "shards") as meter:
                extract_shards(
                    data.resolve(),
                    shards,
                    load,
                    gpus_per_worker,
                    lambda p: meter.show(p.clips, p.frames, 0),
                )
        write_manifest(paths)
    out.print(f"features {extractor.id}: {len(shards)} shards made", highlight=False)


def say_what_is_missing(data: Path) -> None:
    """After a preparation without a checkpoint: which file would add AV-HuBERT features, and how."""
    entry = entry_named("avhubert-base")
    command = f"syncdiff-prep features avhubert {data} --checkpoint {entry.file}"
    lines = (
        "AV-HuBERT features were not made: they need a checkpoint, which may not be shipped.",
        f"  file: {entry.file} (or another size); {entry.licence}",
        f"  published at: {entry.published_at}",
        f"  then: {command}",
    )
    for line in lines:
        out.print(escape(line), highlight=False, soft_wrap=True)
