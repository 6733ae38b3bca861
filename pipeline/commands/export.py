"""`syncdiff-prep export`: a prepared data set in the form that another program reads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from syncdiff.pipeline import console as show
from syncdiff.pipeline.store.read import ClipView, Dataset, open_dataset

if TYPE_CHECKING:
    from syncdiff.pipeline.export.base import ExportCounts, OnClip

out = Console()

Data = Annotated[Path, typer.Argument(help="A prepared data set.")]
Target = Annotated[Path, typer.Argument(help="Folder to write to.")]
Split = Annotated[str | None, typer.Option(help="Only this split.")]
Raw = Annotated[
    Path | None,
    typer.Option(help="The raw data set: whole frames of the sources instead of the stored face crops."),
]
FeatureNames = Annotated[
    list[str] | None, typer.Option("--features", help="Features to add; may be repeated.")
]
ClusterFile = Annotated[
    Path | None, typer.Option("--clusters", help="Speech units of `syncdiff-prep features kmeans`.")
]

export_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Write the data set in a form that other programs read. A second run continues.",
)


def _run(dataset: Dataset, work: Callable[[OnClip], ExportCounts]) -> None:
    """Show progress while a target is written, and what was written, kept and left out at its end."""
    done = frames = 0
    with show.Meter(out, len(dataset)) as meter:

        def on_clip(clip: ClipView) -> None:
            nonlocal done, frames
            done, frames = done + 1, frames + clip.num_frames
            meter.show(done, frames, 0)

        try:
            counts = work(on_clip)
        except (ValueError, ImportError) as error:
            show.print_error(error)
            sys.exit(show.FAILED)
    out.print(f"{counts.written} clips written, {counts.kept} there already", highlight=False)
    for reason, number in sorted(counts.left_out.items()):
        out.print(f"left out {number}: {escape(reason)}", style="yellow", highlight=False)


@export_app.command("wav2lip")
def wav2lip(data: Data, target: Target, split: Split = None) -> None:
    """Wav2Lip: folders of frames and audio.wav with file lists.

    Example: `syncdiff-prep export wav2lip data/lrs2 wav2lip/lrs2_preprocessed`
    """
    from syncdiff.pipeline.export.wav2lip import export_wav2lip

    dataset = open_dataset(data, split)
    _run(dataset, lambda on_clip: export_wav2lip(dataset, target, on_clip))


@export_app.command("webdataset")
def webdataset(data: Data, target: Target, split: Split = None, features: FeatureNames = None) -> None:
    """WebDataset: one tar a shard.

    Example: `syncdiff-prep export webdataset data/lrs2 tars --features logfbank`
    """
    from syncdiff.pipeline.export.plain import export_webdataset

    dataset = open_dataset(data, split)
    _run(dataset, lambda on_clip: export_webdataset(dataset, target, features or [], on_clip))


@export_app.command("frames")
def frames(data: Data, target: Target, split: Split = None, features: FeatureNames = None) -> None:
    """Plain files: frames, masks, audio.wav, features as .npy, and meta.json for each clip.

    Example: `syncdiff-prep export frames data/lrs2 plain --split val --features mel`
    """
    from syncdiff.pipeline.export.plain import export_frames

    dataset = open_dataset(data, split)
    _run(dataset, lambda on_clip: export_frames(dataset, target, features or [], on_clip))


@export_app.command("preview")
def preview(data: Data, target: Target, split: Split = None) -> None:
    """To look at: an mp4 a row, with sound, landmarks and the mask's edge drawn over it.

    Example: `syncdiff-prep export preview data/lrs2 previews --split test`
    """
    from syncdiff.pipeline.export.preview import export_previews

    dataset = open_dataset(data, split)
    _run(dataset, lambda on_clip: export_previews(dataset, target, on_clip))


@export_app.command("avhubert")
def avhubert(
    data: Data,
    target: Target,
    split: Split = None,
    clusters: ClusterFile = None,
    subwords: Annotated[
        int | None, typer.Option(min=8, help="dict.wrd.txt of this many SentencePiece units, not words.")
    ] = None,
) -> None:
    """AV-HuBERT and Whisper-Flamingo: manifests, 96x96 mouth videos, sound, words; `.km` with --clusters.

    Example: `syncdiff-prep export avhubert data/lrs3 lrs3/433h_data --subwords 1000`
    """
    _manifest("avhubert", data, target, split, clusters, "en", subwords)


@export_app.command("vsp-llm")
def vsp_llm(
    data: Data,
    target: Target,
    clusters: Annotated[Path, typer.Option(help="Speech units of `syncdiff-prep features kmeans`.")],
    split: Split = None,
    language: Annotated[str, typer.Option(help="en, es, fr, it or pt.")] = "en",
) -> None:
    """VSP-LLM: the same with `.cluster_counts`.

    Example: `syncdiff-prep export vsp-llm data/lrs3 vsp --clusters units/km200.npz`
    """
    _manifest("vsp-llm", data, target, split, clusters, language, None)


@export_app.command("mms-llama")
def mms_llama(data: Data, target: Target, split: Split = None) -> None:
    """MMS-LLaMA: the same with the speech rate as a sixth field.

    Example: `syncdiff-prep export mms-llama data/lrs3 mms`
    """
    _manifest("mms-llama", data, target, split, None, "en", None)


def _manifest(
    kind: Literal["avhubert", "vsp-llm", "mms-llama"],
    data: Path,
    target: Path,
    split: str | None,
    clusters: Path | None,
    language: str,
    subwords: int | None,
) -> None:
    from syncdiff.pipeline.export.avhubert import export_avhubert, write_subwords
    from syncdiff.pipeline.features.kmeans import load

    dataset = open_dataset(data, split)

    def work(on_clip: OnClip) -> ExportCounts:
        units = None if clusters is None else load(clusters)
        counts = export_avhubert(dataset, target, kind, units, language, on_clip)
        if subwords is not None:
            write_subwords(target, subwords)
        return counts

    _run(dataset, work)


@export_app.command("fairseq-features")
def fairseq_features(
    data: Data,
    target: Target,
    features: Annotated[str, typer.Option(help="The features to write, such as avhubert-both-12.")],
    split: Split = None,
    shards: Annotated[int, typer.Option(min=1, help="Files a split is cut into.")] = 1,
) -> None:
    """fairseq's clustering: `<split>_<rank>_<n>.npy` and `.len`, as its dump scripts write them.

    Example: `syncdiff-prep export fairseq-features data/lrs3 feat --features avhubert-both-12`
    """
    from syncdiff.pipeline.export.avhubert import export_fairseq_features

    dataset = open_dataset(data, split)
    _run(dataset, lambda on_clip: export_fairseq_features(dataset, target, features, shards, on_clip))


@export_app.command("avh-align")
def avh_align(
    data: Data,
    target: Target,
    split: Split = None,
    layer: Annotated[str, typer.Option(help="AV-HuBERT layer of the stored features.")] = "final",
) -> None:
    """AVH-Align: an .npz a clip with visual, audio and multimodal features, and CSV lists.

    Example: `syncdiff-prep export avh-align data/vox2 avh`
    """
    from syncdiff.pipeline.export.avh_align import export_avh_align

    dataset = open_dataset(data, split)
    _run(dataset, lambda on_clip: export_avh_align(dataset, target, layer, on_clip))


@export_app.command("auto-avsr")
def auto_avsr(
    data: Data,
    target: Target,
    split: Split = None,
    raw: Raw = None,
    model: Annotated[
        Path | None, typer.Option("--sentencepiece", help="Their unigram5000.model, for the label lists.")
    ] = None,
    units: Annotated[Path | None, typer.Option(help="Their unigram5000_units.txt.")] = None,
) -> None:
    """auto_avsr: 96x96 videos in its own alignment, sound, text, and label lists with --sentencepiece.

    Example: `syncdiff-prep export auto-avsr data/lrs3 avsr --raw /raw/lrs3 --sentencepiece unigram5000.model
    --units unigram5000_units.txt`
    """
    from syncdiff.pipeline.export.auto_avsr import export_auto_avsr, load_tokens

    if (model is None) != (units is None):
        raise typer.BadParameter("--sentencepiece and --units belong together")
    dataset = open_dataset(data, split)

    def work(on_clip: OnClip) -> ExportCounts:
        tokens = None if model is None or units is None else load_tokens(model, units)
        return export_auto_avsr(dataset, target, raw, tokens, on_clip)

    _run(dataset, work)
    if model is None:
        out.print("no label lists: they need auto_avsr's SentencePiece model (--sentencepiece, --units)")


@export_app.command("landmarks")
def landmarks(
    data: Data,
    target: Target,
    raw: Annotated[Path, typer.Option(help="The raw data set that DATA was prepared from.")],
    split: Split = None,
) -> None:
    """Landmarks for auto_avsr's `--landmarks-dir` and AV-HuBERT's `--landmark-direc`: a .pkl a source.

    Example: `syncdiff-prep export landmarks data/lrs3 lrs3_landmarks --raw /raw/lrs3`
    """
    from syncdiff.pipeline.export.auto_avsr import export_landmarks

    dataset = open_dataset(data, split)
    _run(dataset, lambda on_clip: export_landmarks(dataset, target, raw, on_clip))


@export_app.command("talklip")
def talklip(data: Data, target: Target, split: Split = None, raw: Raw = None) -> None:
    """TalkLip: videos, sound, boxes, text and file lists.

    Example: `syncdiff-prep export talklip data/lrs2 talklip --raw /raw/lrs2`
    """
    from syncdiff.pipeline.export.lip_sync import export_talklip

    dataset = open_dataset(data, split)
    _run(dataset, lambda on_clip: export_talklip(dataset, target, raw, on_clip))


@export_app.command("latentsync")
def latentsync(
    data: Data,
    target: Target,
    split: Split = None,
    raw: Raw = None,
    size: Annotated[Literal["256", "512"], typer.Option(help="Side of the pictures in pixels.")] = "256",
) -> None:
    """LatentSync: videos with sound in its alignment, of 48 frames or more, and lists of them.

    Example: `syncdiff-prep export latentsync data/hdtf latentsync --raw /raw/hdtf --size 512`
    """
    from syncdiff.pipeline.export.lip_sync import export_latentsync

    dataset = open_dataset(data, split)
    _run(dataset, lambda on_clip: export_latentsync(dataset, target, raw, int(size), on_clip))


@export_app.command("musetalk")
def musetalk(data: Data, target: Target, split: Split = None, raw: Raw = None) -> None:
    """MuseTalk 1.5: videos, sound, and a JSON a clip with boxes and landmarks.

    Example: `syncdiff-prep export musetalk data/hdtf musetalk --raw /raw/hdtf`
    """
    from syncdiff.pipeline.export.lip_sync import export_musetalk

    dataset = open_dataset(data, split)
    _run(dataset, lambda on_clip: export_musetalk(dataset, target, raw, on_clip))


@export_app.command("keysync")
def keysync(
    data: Data,
    target: Target,
    split: Split = None,
    raw: Raw = None,
    wavlm: Annotated[str | None, typer.Option(help="Features to write as its WavLM embeddings.")] = None,
    hubert: Annotated[str | None, typer.Option(help="Features to write as its HuBERT embeddings.")] = None,
) -> None:
    """KeySync: parallel folders of videos, sound, landmarks and embeddings.

    Example: `syncdiff-prep export keysync data/hdtf keysync --raw /raw/hdtf --wavlm speech-wavlm-final`
    """
    from syncdiff.pipeline.export.lip_sync import export_keysync

    chosen = {kind: name for kind, name in (("wavlm", wavlm), ("hubert", hubert)) if name is not None}
    dataset = open_dataset(data, split)
    _run(dataset, lambda on_clip: export_keysync(dataset, target, raw, chosen, on_clip))
