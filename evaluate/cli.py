"""The command `syncdiff-eval`: generated videos in, tables and a report out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from syncdiff.evaluate.cli_check import HELP as CHECK_HELP
from syncdiff.evaluate.cli_check import check as check_figures
from syncdiff.evaluate.pairing.dataset_references import StoredClip
from syncdiff.evaluate.pairing.inputs import EvalInputs, check, default_folder, find_references
from syncdiff.evaluate.pairing.match import Matched, match
from syncdiff.evaluate.pairing.methods import MatchError, NothingFoundError
from syncdiff.evaluate.pairing.transcripts import with_transcripts
from syncdiff.evaluate.protocol import Protocol, load_protocol
from syncdiff.evaluate.records import Evaluation
from syncdiff.evaluate.reencode import Codecs, parse_codecs
from syncdiff.evaluate.report.published import Published, comparable
from syncdiff.pipeline import console as show
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.plugins import METRICS, plugin_names
from syncdiff.pipeline.ray_start import connect
from syncdiff.pipeline.records import ClipError, RunError
from syncdiff.pipeline.report.render import visible
from syncdiff.pipeline.store.paths import StoreError
from syncdiff.pipeline.weights.published import WeightsError

if TYPE_CHECKING:
    from syncdiff.evaluate.metrics.registry import MetricChoice


out = Console()
err = Console(stderr=True)
MOST_LISTED = 10
LIP_READING = ("wer", "lipscore")  # which --lip-reader asks for
HELP = """Score generated videos: lip-sync, picture quality, identity and more, in one table with intervals.

RESULTS are folders of videos, flat or nested. Several are a method each; one is a method, or holds methods as
sub-folders: those whose files have the names of the references (or, without references, mostly the same
names). Names are paths below the folder, without suffix; a.avi belongs to a.mp4.

Examples:

`syncdiff-eval results/` — what needs no reference: lip-sync, sharpness

`syncdiff-eval results/ --reference /raw/lrs2/mvlrs_v1/main` — all metrics; sub-folders may be methods

`syncdiff-eval ours/ wav2lip/ --reference real/ --compare-published lrs2` — side by side, papers' beside them

`syncdiff-eval results/ --data data/lrs2 --split test` — results of syncdiff-generate --data data/lrs2

`syncdiff-eval results/ --protocol unsynced --list filelists/lrs2.txt` — Wav2Lip's pairs; no ground truth

`syncdiff-eval silent/ --protocol silent --reference real/` — leakage, of videos that were driven by silence

`syncdiff-eval results/ --reference real/ --lip-reader base_vox_433h.pt` — and read its lips: word errors

`syncdiff-eval results/ --reference real/ --metrics lse,psnr --dry-run` — what would be done

`syncdiff-eval check` — do metrics here give the figures that are published for known files?

Running the same command again, or with more metrics or methods, computes only what is new.
"""


def main() -> None:
    """Entry point: declared failures end with a sentence and an exit code, not with a traceback."""
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    checks = sys.argv[1:2] == ["check"]
    command, text, skip = (check_figures, CHECK_HELP, 2) if checks else (evaluate, HELP, 1)
    name = "syncdiff-eval check" if checks else "syncdiff-eval"
    app.command(name=name, help=text)(command)
    show.run_command(
        partial(app, args=sys.argv[skip:], prog_name=name),
        usage=(MatchError, ConfigError, StoreError, WeightsError),
        failures=(NothingFoundError, ClipError, RunError, OSError),
        interrupted="stopped; what is scored is kept, and the same command continues",
    )


def evaluate(
    results: Annotated[list[Path], typer.Argument(help="Folders of generated videos; only read.")],
    reference: Annotated[
        Path | None, typer.Option("--reference", "-r", help="Folder of the references; only read.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Prepared data set whose rows are the references.")
    ] = None,
    raw: Annotated[
        Path | None, typer.Option(help="With --data: its raw data set, for results that are full pictures.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="With --data: only this split.")] = None,
    list_file: Annotated[
        Path | None, typer.Option("--list", help="Lines `generated, reference[, sound]`, or a pairs list.")
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            help="What intervals are drawn over: folder, clip, or a file of lines `clip, speaker`.  "
            "[default: the data set's speakers, or the clips' folders]"
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", "-p", help="reconstruction, unsynced, cross, silent, or a YAML file.")
    ] = "reconstruction",
    metrics: Annotated[
        str | None, typer.Option("--metrics", "-m", help="Only these, separated by commas.")
    ] = None,
    also: Annotated[
        str | None, typer.Option(help="These besides the protocol's own: those it computes on request.")
    ] = None,
    metric_file: Annotated[
        list[Path] | None,
        typer.Option(help="A Python file of metrics of your own, computed too. It is run. Repeatable."),
    ] = None,
    list_metrics: Annotated[
        bool,
        typer.Option(
            "--list-metrics",
            is_eager=True,
            callback=lambda asked: _list_metrics() if asked else None,
            help="All metrics: columns, what they need, the protocols that have them.",
        ),
    ] = False,
    lse: Annotated[
        Literal["wav2lip-lrs", "syncnet-tracks"] | None, typer.Option(help="How LSE is computed.")
    ] = None,
    arcface: Annotated[
        Path | None, typer.Option(help="ArcFace network (.onnx) for identity, in place of dlib's.")
    ] = None,
    lip_reader: Annotated[
        str | None,
        typer.Option(help="Also wer and lipscore, by this fine-tuned AV-HuBERT: a file or a name."),
    ] = None,
    reencode: Annotated[
        str | None,
        typer.Option(
            help="Score copies of all results by one codec, such as h264:crf18+aac:128k; tables say so."
        ),
    ] = None,
    one_method: Annotated[
        bool | None,
        typer.Option("--one-method/--sub-folders", help="What sub-folders of a single RESULTS are."),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", "-o", help="For the report.  [default: eval/NAMES-PROTOCOL]")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="For what is kept between runs.  [default: cache beside --out]")
    ] = None,
    compare_published: Annotated[
        str | None, typer.Option(help="Papers' figures on this data set beside yours: lrs2 or lrs3.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Method that the others are compared with.  [default: the first]")
    ] = None,
    clips: Annotated[int, typer.Option(min=0, help="Clips shown with pictures in report.html.")] = 18,
    rank_by: Annotated[str | None, typer.Option(help="Value that says which clips those are.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.  [default: all cores]")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="A running Ray cluster, such as auto or ray://head:10001.")
    ] = None,
    unverified_weights: Annotated[
        bool,
        typer.Option(
            "--unverified-weights", help="Use weights that are not the published; every table says so."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")
    ] = False,
) -> None:
    if arcface is not None and (arcface.suffix != ".onnx" or not arcface.is_file()):
        raise ConfigError(f"--arcface: {arcface} is not an .onnx file that is here")
    reader = str(Path(lip_reader).absolute()) if lip_reader and Path(lip_reader).exists() else lip_reader
    chosen_here = {"lse": lse, "identity": arcface and str(arcface.absolute()), "lip_reader": reader}
    settings = load_protocol(protocol, **{key: value for key, value in chosen_here.items() if value})
    if lip_reader and metrics is None:
        also = ",".join([also or "", *(name for name in LIP_READING if name in settings.on_request)])
    codecs = None if reencode is None else parse_codecs(reencode)
    published = _published(compare_published, settings)
    results = [path.absolute() for path in results]
    target = (out_dir or default_folder(results, settings)).absolute()
    inputs = EvalInputs(
        results=tuple(results),
        reference=_absolute(reference),
        data=_absolute(data),
        raw=_absolute(raw),
        split=split,
        list_file=_absolute(list_file),
        groups=groups,
        metric_files=tuple(path.absolute() for path in metric_file or ()),
        sub_folders=None if one_method is None else not one_method,
        metrics=wanted_metrics(settings, metrics, also),
        unverified_weights=unverified_weights,
        out_dir=target,
        cache=_absolute(cache) or target.parent / "cache",
    )
    check(inputs, out_is_chosen=out_dir is not None)
    if codecs is not None:  # figures of copies are those of another protocol
        settings = replace(settings, name=f"{settings.name}, results re-encoded {codecs.name}")
    matched, rows = _match(inputs, settings)
    _announce(settings, matched)
    if baseline is not None and baseline not in matched.methods:
        raise MatchError(f"no method {baseline!r}; there are {', '.join(matched.methods)}")
    chosen = _choose(inputs, settings, matched, rank_by)
    if dry_run or not chosen.metrics:
        out.print(
            f"{'would compute' if dry_run else 'can compute'}: {', '.join(chosen.metrics) or 'nothing'}"
        )
        for missing in chosen.not_computed:
            out.print(
                f"not computed: {missing.metric}: {escape(missing.detail)}", highlight=False, soft_wrap=True
            )
        raise typer.Exit(0 if chosen.metrics else show.FAILED)
    evaluation = _score(inputs, settings, matched, chosen, rows, codecs, workers, ray_address)
    _report(evaluation, target, published, baseline, clips, rank_by)


def _absolute(path: Path | None) -> Path | None:
    """Workers may run in another folder."""
    return None if path is None else path.absolute()


def _list_metrics() -> None:
    from syncdiff.evaluate.report.metric_list import metric_list

    typer.echo(metric_list())
    if installed := plugin_names(METRICS):
        typer.echo(f"Of other installed packages, by --metrics or --also NAMES: {', '.join(installed)}.")
    typer.echo("In brackets: protocols that compute it only when asked for (--also NAMES).")
    raise typer.Exit


def wanted_metrics(protocol: Protocol, metrics: str | None, also: str | None) -> tuple[str, ...] | None:
    """Names of --metrics, or of the protocol, and of --also; None where neither is given."""
    if metrics is None and also is None:
        return None
    only, more = (
        tuple(name.strip() for name in (text or "").split(",") if name.strip()) for text in (metrics, also)
    )
    return (*(protocol.metrics if metrics is None else only), *more)


def _match(inputs: EvalInputs, protocol: Protocol) -> tuple[Matched, dict[Path, StoredClip]]:
    references, rows = find_references(inputs)
    matched = match(
        inputs.results,
        protocol,
        references,
        inputs.list_file,
        sub_folders=inputs.sub_folders,
        leave_out=inputs.out_dir,
        groups=inputs.groups,
    )
    if "wer" in (inputs.metrics or protocol.metrics):  # which alone needs to know what is said
        matched = with_transcripts(matched, protocol, references)
    return matched, rows


def _choose(inputs: EvalInputs, protocol: Protocol, matched: Matched, rank_by: str | None) -> MetricChoice:
    # Metrics bring PyTorch and more with them; help and wrong usage should not wait for it.
    from syncdiff.evaluate.metrics.plugins import all_entries, file_entries
    from syncdiff.evaluate.metrics.registry import choose_metrics

    own = [name for file in inputs.metric_files for name in file_entries(file)]
    wanted = protocol.metrics if inputs.metrics is None else inputs.metrics
    entries = all_entries(wanted, inputs.metric_files)
    chosen = choose_metrics(
        protocol,
        (*wanted, *own),
        has_references=any(case.reference for case in matched.cases),
        allow_unverified=inputs.unverified_weights,
        entries=entries,
    )
    per_clip = [entries[name].metric for name in chosen.metrics if entries[name].metric.per_clip]
    values = [value.name for metric in per_clip for value in metric.values if value.better != "none"]
    if rank_by is not None and rank_by not in values:
        raise MatchError(f"--rank-by: no value {rank_by!r} that ranks clips; there are {', '.join(values)}")
    return chosen


def _published(dataset: str | None, protocol: Protocol) -> tuple[Published, ...]:
    if dataset is None:
        return ()
    try:
        return comparable(dataset, protocol.name, protocol.lse)
    except ValueError as error:
        raise MatchError(f"--compare-published: {error}") from error


def _announce(protocol: Protocol, matched: Matched) -> None:
    """What was found, and what has no partner."""
    for note in matched.notes:
        out.print(f"note: {escape(note)}", highlight=False, soft_wrap=True)
    numbers = {method: sum(case.method == method for case in matched.cases) for method in matched.methods}
    with_reference = sum(case.reference is not None for case in matched.cases)
    counts = ", ".join(f"{method} {number:,}" for method, number in numbers.items())
    line = f"{len(matched.cases):,} videos ({counts}), {with_reference:,} with reference"
    out.print(escape(f"protocol {protocol.name}: {line}"), highlight=False, soft_wrap=True)
    for file in matched.unmatched[:MOST_LISTED]:
        where = f"{file.method}: " if file.method else ""
        text = visible(f"{where}{file.name}: {file.reason}")
        out.print(f"  no partner ({file.side}): {escape(text)}", highlight=False, soft_wrap=True)
    if len(matched.unmatched) > MOST_LISTED:
        more = len(matched.unmatched) - MOST_LISTED
        out.print(f"  ... and {more:,} more without partner, all in metrics.json", highlight=False)


def _score(
    inputs: EvalInputs,
    protocol: Protocol,
    matched: Matched,
    chosen: MetricChoice,
    rows: dict[Path, StoredClip],
    codecs: Codecs | None,
    workers: int | None,
    ray_address: str | None,
) -> Evaluation:
    # Ray and PyTorch take seconds to import; help and wrong usage should not wait for them.
    connect(workers or show.available_cores(), ray_address)
    from syncdiff.evaluate.run_ray import run_evaluation  # imports Ray: after `connect`
    from syncdiff.evaluate.score_clip import Work

    work = Work(protocol, chosen.weights, inputs.cache, chosen.metrics, inputs.metric_files, codecs)
    with show.Meter(out, len(matched.cases)) as meter:
        return run_evaluation(
            work,
            matched,
            chosen,
            rows,
            inputs.to_dict(),
            lambda p: meter.show(p.clips, p.frames, p.rejects.total()),
            _print_times,
        )


def _print_times(seconds: Mapping[str, float], frames: int) -> None:
    """Time of each metric measured in this run, the slowest first."""
    if not frames:
        return
    slowest = sorted(seconds.items(), key=lambda pair: -pair[1])
    each = ", ".join(f"{name} {number:.1f}" for name, number in slowest if number >= 0.05)
    total = sum(seconds.values())
    text = f"seconds of all workers for {frames:,} frames: {total:.1f} in all; {each}"
    out.print(f"{text} (decoding and faces are in the first that asked)", style="dim", highlight=False)


def _report(
    evaluation: Evaluation,
    folder: Path,
    published: tuple[Published, ...],
    baseline: str | None,
    clips: int,
    rank_by: str | None,
) -> None:
    """Print the tables and write the files; exit code 1 where nothing was scored."""
    from syncdiff.evaluate.report.write import print_report, write_report

    print_report(out, evaluation, published, baseline)
    files = write_report(evaluation, folder, published, baseline, clips=clips, rank_by=rank_by)
    page = next(file for file in files if file.suffix == ".html")
    out.print(
        f"report: {escape(str(page))}   all files: {escape(str(folder))}", highlight=False, soft_wrap=True
    )
    if not evaluation.scores and not any(pooled.values for pooled in evaluation.pooled):
        raise NothingFoundError("nothing could be scored; the reasons are above")
