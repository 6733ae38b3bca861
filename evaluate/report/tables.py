"""The tables of a report as numbers and sentences; how they look is decided by whoever draws them.

Methods are compared on the clips that every one of them has a score for. What a method was not scored on
stands beside its figure, so that leaving out hard clips cannot make it look better unseen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose, isfinite, nan
from typing import Literal

import numpy as np

from syncdiff.evaluate.bootstrap import (
    Interval,
    bootstrap_mean,
    clusters_of,
    common_clips,
    holm,
    paired_difference,
)
from syncdiff.evaluate.metrics.base import FACE_LOST, Value
from syncdiff.evaluate.records import Coverage, Evaluation, MetricInfo, Scope

ARROWS = {"higher": "↑", "lower": "↓", "zero": "→0", "none": ""}
MAGNITUDE = "_abs"
SIGNIFICANCE = 0.05
FEW_UNITS = 10  # the percentile interval is too narrow below about so many (Cameron et al. 2008, section VI)
VERDICT_RULE = (
    "Better or worse only where p < 0.05 in a paired sign-flip test, corrected for the number of methods "
    "(Holm); intervals are not corrected."
)
MISSES = "†"


@dataclass(frozen=True)
class ValueColumn:
    """A value as a column. magnitude: |value| of each clip, since opposite errors must not cancel out."""

    value: Value
    metric: MetricInfo
    magnitude: bool = False

    @property
    def key(self) -> str:
        return self.value.name

    @property
    def measured(self) -> str:
        """Name of the value that clips have."""
        return self.key.removesuffix(MAGNITUDE) if self.magnitude else self.key

    @property
    def directed(self) -> bool:
        """Whether more is better, or less."""
        return self.value.better in ("higher", "lower")

    @property
    def head(self) -> str:
        """Title with an arrow to where it is better."""
        return f"{self.value.title} {ARROWS[self.value.better]}".strip()

    def text(self, number: float) -> str:
        """A number of this column, as it is printed; a dash for one that is not known."""
        return f"{number:.{self.value.digits}f}".replace("-", "−") if isfinite(number) else "–"

    def texts(self, interval: Interval | None) -> tuple[str, str]:
        """Mean, and interval in brackets; empty where there is none."""
        if interval is None:
            return "–", ""
        low, high = self.text(interval.low), self.text(interval.high)
        return self.text(interval.mean), f"[{low}, {high}]" if isfinite(interval.low) else ""

    def of(self, evaluation: Evaluation, method: str) -> Mapping[str, float]:
        """Clip -> number."""
        numbers = evaluation.clip_values(method, self.measured)
        return {clip: abs(number) for clip, number in numbers.items()} if self.magnitude else numbers


@dataclass(frozen=True)
class Cell:
    """One method in one column. shared: over the clips of all methods; own: over all that it has.

    face_lost: frames without a face, in percent, that count as misses in these figures.
    """

    shared: Interval | None
    own: Interval | None
    coverage: Coverage
    face_lost: float = 0.0

    @property
    def mark(self) -> str:
        """Stands behind a mean that misses went into."""
        return MISSES if self.face_lost else ""


@dataclass(frozen=True)
class MetricTable:
    """Columns of a family of metrics (psnr, psnr_face, …) that go over the same clips; drawn as one table.

    compared: methods with any score. clips: how many all of those have. cells: by method and column key.
    best: the best of the compared methods for each column that has a direction.
    """

    columns: tuple[ValueColumn, ...]
    methods: tuple[str, ...]
    compared: tuple[str, ...]
    clips: int
    cells: Mapping[tuple[str, str], Cell]
    best: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def metrics(self) -> tuple[MetricInfo, ...]:
        """Metrics of the columns, each once."""
        return tuple({column.metric.name: column.metric for column in self.columns}.values())

    @property
    def family(self) -> str:
        return family(self.columns[0].metric)

    def coverage(self, method: str) -> Coverage:
        """The same for all columns."""
        return self.cells[method, self.columns[0].key].coverage


@dataclass(frozen=True)
class Difference:
    """Mean of a method minus the baseline's over the clips that both have, clip by clip.

    p: of the paired test, corrected for the number of methods. verdict: "better" or "worse" by VERDICT_RULE
    where the column has a direction, else "".
    """

    method: str
    column: ValueColumn
    interval: Interval
    p: float
    verdict: Literal["", "better", "worse"]

    @property
    def texts(self) -> tuple[str, str]:
        """Signed mean, and its interval."""
        mean, interval = self.column.texts(self.interval)
        return mean if mean.startswith("−") else f"+{mean}", interval


@dataclass(frozen=True)
class ReportTables:
    """All tables. baseline: the method that the others are compared with, None where there is one only."""

    blocks: tuple[MetricTable, ...]
    baseline: str | None
    differences: tuple[Difference, ...]

    @property
    def columns(self) -> tuple[ValueColumn, ...]:
        return tuple(column for block in self.blocks for column in block.columns)

    @property
    def clip_columns(self) -> tuple[ValueColumn, ...]:
        """Those whose values single clips have; magnitudes only repeat them."""
        return tuple(column for column in self.columns if column.metric.per_clip and not column.magnitude)

    @property
    def difference_lines(self) -> list[tuple[ValueColumn, dict[str, Difference]]]:
        """The differences as a line a value, with an entry for every method that has it."""
        lines: dict[str, tuple[ValueColumn, dict[str, Difference]]] = {}
        for difference in self.differences:
            column = difference.column
            lines.setdefault(column.key, (column, {}))[1][difference.method] = difference
        return list(lines.values())

    @property
    def general_notes(self) -> tuple[str, ...]:
        """Notes of blocks that tables over several blocks need too: protocol, unverified weights."""
        notes = dict.fromkeys(note for block in self.blocks for note in block.notes)
        return tuple(note for note in notes if note.startswith(("Protocol ", "UNVERIFIED WEIGHTS")))


def make_results(evaluation: Evaluation, baseline: str | None = None) -> ReportTables:
    """All figures of an evaluation. baseline: the first method unless named.

    Raises ValueError for a baseline that is no method.
    """
    if baseline is not None and baseline not in evaluation.methods:
        raise ValueError(f"no method {baseline!r}; there are {', '.join(evaluation.methods)}")
    # Columns that may stand in one table: of one family, over the same clips, with the same coverage.
    groups: dict[object, list[ValueColumn]] = {}
    for column in (column for metric in evaluation.metrics for column in _columns(metric)):
        covered = tuple(evaluation.coverage(method, column.measured) for method in evaluation.methods)
        key = (family(column.metric), column.metric.per_clip, _shared_clips(evaluation, column), covered)
        groups.setdefault(key, []).append(column)
    blocks = tuple(_block(evaluation, tuple(columns)) for columns in groups.values())
    if len(evaluation.methods) < 2:
        return ReportTables(blocks, None, ())
    baseline = baseline or evaluation.methods[0]
    differences = [
        difference
        for block in blocks
        for column in block.columns
        if column.metric.per_clip
        for difference in _differences(evaluation, column, baseline)
    ]
    return ReportTables(blocks, baseline, tuple(differences))


def _columns(metric: MetricInfo) -> Iterator[ValueColumn]:
    """A column for each value, and one more for the magnitude of those that should be 0."""
    for value in metric.values:
        yield ValueColumn(value, metric)
        if value.better == "zero" and metric.per_clip:
            size = replace(value, name=value.name + MAGNITUDE, title=f"|{value.title}|", better="lower")
            yield ValueColumn(size, metric, magnitude=True)


def family(metric: MetricInfo) -> str:
    """What is before the first underscore of its name: `psnr` of `psnr_face`."""
    return metric.name.split("_")[0]


def _shared_clips(evaluation: Evaluation, column: ValueColumn) -> tuple[str, ...]:
    """Clips of all methods that have any; a method without a score would leave nothing to compare."""
    if column.metric.per_clip:
        numbers = {method: column.of(evaluation, method) for method in evaluation.methods}
        return tuple(common_clips({method: clips for method, clips in numbers.items() if clips}))
    pooled = (evaluation.pooled_for(method, column.metric.name, "shared") for method in evaluation.methods)
    return next((values.clips for values in pooled if values is not None and values.clips), ())


def _block(evaluation: Evaluation, columns: tuple[ValueColumn, ...]) -> MetricTable:
    methods, clips = evaluation.methods, _shared_clips(evaluation, columns[0])
    compared = tuple(m for m in methods if evaluation.coverage(m, columns[0].measured).scored)
    cells: dict[tuple[str, str], Cell] = {}
    best = {}
    for column in columns:
        shared = {
            m: _figure(evaluation, column, m, "shared", clips) if m in compared else None for m in methods
        }
        own = {m: _figure(evaluation, column, m, "own", sorted(column.of(evaluation, m))) for m in methods}
        figures = [figure for figure in (*shared.values(), *own.values()) if figure is not None]
        if any(figure.clips > 1 and not isfinite(figure.low) for figure in figures):
            # A column has intervals for all methods or for none: a pooled value that happens to be the mean
            # (clips of one length, frames pooled) must not look like a difference between methods.
            shared, own = (
                {m: f and replace(f, low=nan, high=nan) for m, f in c.items()} for c in (shared, own)
            )
        for m in methods:
            lost = _face_lost(evaluation, column, m, clips)
            cells[m, column.key] = Cell(shared[m], own[m], evaluation.coverage(m, column.measured), lost)
        ranked = sorted(
            ((figure.mean, m) for m, figure in shared.items() if figure is not None),
            key=lambda pair: pair[0],
            reverse=column.value.better == "higher",
        )
        if column.directed and len(ranked) > 1 and ranked[0][0] != ranked[1][0]:
            best[column.key] = ranked[0][1]
    block = MetricTable(columns, methods, compared, len(clips), cells, best, ())
    return replace(block, notes=tuple(_block_notes(evaluation, block)))


def _face_lost(evaluation: Evaluation, column: ValueColumn, method: str, clips: Sequence[str]) -> float:
    """Mean over clips of the frames in percent that count as misses; 0 for metrics that know of none."""
    name = next((v.name for v in column.metric.values if v.name.endswith(FACE_LOST)), None)
    if name is None or name == column.key:
        return 0.0
    lost = evaluation.clip_values(method, name)
    return float(np.mean([lost[clip] for clip in clips if clip in lost] or [0.0]))


def _figure(
    evaluation: Evaluation, column: ValueColumn, method: str, scope: Scope, clips: Sequence[str]
) -> Interval | None:
    """The metric's own pooled value; with the bootstrap interval where that is the mean over clips."""
    pooled = evaluation.pooled_for(method, column.metric.name, scope)
    value = None if pooled is None or column.magnitude else pooled.values.get(column.key)
    if not column.metric.per_clip:
        return None if pooled is None or value is None else Interval(value, nan, nan, len(pooled.clips), 0)
    if not clips:
        return None
    numbers = column.of(evaluation, method)
    values = np.array([numbers[clip] for clip in clips])
    interval = bootstrap_mean(values, clusters_of(clips, evaluation.groups))
    same_clips = pooled is not None and tuple(pooled.clips) == tuple(clips)
    if value is None or not same_clips or isclose(value, interval.mean, rel_tol=1e-5, abs_tol=1e-9):
        return interval
    return Interval(value, nan, nan, len(clips), 0)


def _block_notes(evaluation: Evaluation, block: MetricTable) -> Iterator[str]:
    """What must be said with each table: protocol, settings, clips, weights."""
    yield f"Protocol {evaluation.protocol.get('name') or 'without name'}; LSE {lse_name(evaluation)}."
    for metric in block.metrics:
        if metric.settings:
            yield f"{metric.name}: {_settings_text(metric.settings)}."
    per_clip = block.columns[0].metric.per_clip
    unit = unit_text(evaluation, _shared_clips(evaluation, block.columns[0]))
    figure = f"Mean [95 % bootstrap interval over {unit}]" if per_clip else "One value for all clips together"
    if not block.compared:
        yield "No clip could be scored."
    elif len(block.methods) < 2:
        yield f"{figure}, {clips_text(block.clips)}."
    elif len(block.compared) < 2:
        yield f"{figure}, {clips_text(block.clips)}; no second method has any score."
    else:
        whole = block.compared == block.methods
        who = f"all {len(block.methods)} methods" if whole else ", ".join(block.compared)
        yield f"{figure}, over the {clips_text(block.clips)} that {who} have."
    shared = [cell.shared for (method, _), cell in block.cells.items() if method in block.compared]
    if per_clip and block.clips > 1 and any(f is not None and not isfinite(f.low) for f in shared):
        yield "Where no interval stands, the metric's value for a set is not the mean over its clips."
    for metric in block.metrics:
        lost = {m: block.cells[m, metric.values[0].name].face_lost for m in block.compared}
        shares = ", ".join(f"{m} in {share:.1f} %" for m, share in lost.items() if share)
        if shares:
            yield f"{MISSES} {metric.name}: the face is lost, {shares} of frames, which count as misses."
    absent = [method for method in block.methods if method not in block.compared]
    if absent and block.compared:
        yield f"Without any score, and left out of the comparison: {', '.join(absent)}."
    names = [metric.name for metric in block.metrics]
    for pooled in evaluation.pooled:
        if pooled.metric in names and pooled.problem and pooled.scope == "shared":
            yield f"{pooled.metric} of {pooled.method} not computed: {pooled.problem}"
    unverified = dict.fromkeys(weights for name in names for weights in evaluation.unverified(name))
    if unverified:
        yield f"UNVERIFIED WEIGHTS: {', '.join(unverified)}. Their hash is not the published one."


def unit_text(evaluation: Evaluation, clips: Sequence[str]) -> str:
    """What is drawn for an interval, counted: `40 speakers`, or `clips`, with what must be known of it."""
    clusters = clusters_of(clips, evaluation.groups)
    if clusters is None:
        return f"clips, all of one {evaluation.unit}" if evaluation.groups and len(clips) > 1 else "clips"
    few = ", too few for a sure one" if len(set(clusters)) < FEW_UNITS else ""
    return f"{len(set(clusters)):,} {evaluation.unit}s{few}"


def clips_text(number: int) -> str:
    return f"{number:,} clip" if number == 1 else f"{number:,} clips"


def lse_name(evaluation: Evaluation) -> str:
    """Name of the LSE protocol."""
    return str(evaluation.protocol.get("lse") or "not stated")


def _settings_text(settings: Mapping[str, object]) -> str:
    """`region face, resize 299`; nested settings in brackets."""

    def plain(value: object) -> str:
        if isinstance(value, Mapping):
            return f"({_settings_text(value)})"
        if isinstance(value, (list, tuple)):
            return " ".join(map(plain, value))
        return f"{value:g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{key.replace('_', ' ')} {plain(value)}" for key, value in settings.items())


def _differences(evaluation: Evaluation, column: ValueColumn, baseline: str) -> Iterator[Difference]:
    """One value of all methods against the baseline: a family of tests."""
    theirs = column.of(evaluation, baseline)
    tests = {
        method: test
        for method in evaluation.methods
        if method != baseline
        and (test := paired_difference(column.of(evaluation, method), theirs, evaluation.groups)) is not None
    }
    corrected = holm([p for _, p in tests.values()])
    for (method, (interval, _)), p in zip(tests.items(), corrected, strict=True):
        better = (interval.mean > 0) == (column.value.better == "higher")
        verdict: Literal["", "better", "worse"] = "better" if better else "worse"
        yield Difference(method, column, interval, p, verdict if p < SIGNIFICANCE and column.directed else "")
