"""The tables of a report as numbers and sentences; how they look is decided by whoever draws them.

Methods are compared on the clips that every one of them has a score for. What a method was not scored on
stands beside its figure, so that leaving out hard clips cannot make it look better unseen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose, isfinite, nan

import numpy as np

from syncdiff.evaluate.bootstrap import Interval, bootstrap_mean, common_clips, paired_difference
from syncdiff.evaluate.metrics.base import Value
from syncdiff.evaluate.records import Coverage, Evaluation, MetricInfo, Scope

ARROWS = {"higher": "↑", "lower": "↓", "zero": "→0", "none": ""}
MAGNITUDE = "_abs"
# With fewer, even differences of one sign are no evidence at 5 % (two-sided sign test, 2 * 0.5**n).
MIN_VERDICT_CLIPS = 6
VERDICT_RULE = (
    f"Better or worse only where the 95 % interval leaves out 0, over at least {MIN_VERDICT_CLIPS} clips; "
    "intervals are not corrected for being many."
)


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
    def head(self) -> str:
        """Title with an arrow to where it is better."""
        return f"{self.value.title} {ARROWS[self.value.better]}".strip()

    def text(self, number: float) -> str:
        """A number of this column, as it is printed; nothing for one that is not known."""
        return f"{number:.{self.value.digits}f}".replace("-", "−") if isfinite(number) else "–"

    def of(self, evaluation: Evaluation, method: str) -> Mapping[str, float]:
        """Clip -> number."""
        if not self.magnitude:
            return evaluation.clip_values(method, self.value.name)
        signed = evaluation.clip_values(method, self.value.name.removesuffix(MAGNITUDE))
        return {clip: abs(number) for clip, number in signed.items()}


@dataclass(frozen=True)
class Cell:
    """One method in one column. shared: over the clips of all methods; own: over all that it has."""

    shared: Interval | None
    own: Interval | None
    coverage: Coverage


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

    verdict: "better" or "worse" by VERDICT_RULE where the column has a direction, else "".
    """

    method: str
    column: ValueColumn
    interval: Interval
    verdict: str


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


def make_results(evaluation: Evaluation, baseline: str | None = None) -> ReportTables:
    """All figures of an evaluation. baseline: the first method unless named.

    Raises ValueError for a baseline that is no method.
    """
    if baseline is not None and baseline not in evaluation.methods:
        raise ValueError(f"no method {baseline!r}; there are {', '.join(evaluation.methods)}")
    blocks = tuple(_block(evaluation, columns) for columns in _groups(evaluation))
    if len(evaluation.methods) < 2:
        return ReportTables(blocks, None, ())
    first = baseline or evaluation.methods[0]
    others = [method for method in evaluation.methods if method != first]
    columns = [column for block in blocks for column in block.columns if column.metric.per_clip]
    found = (_difference(evaluation, column, method, first) for column in columns for method in others)
    return ReportTables(blocks, first, tuple(one for one in found if one is not None))


def columns_of(metric: MetricInfo) -> tuple[ValueColumn, ...]:
    """A column for each value, and one more for the magnitude of those that should be 0."""
    columns = []
    for value in metric.values:
        columns.append(ValueColumn(value, metric))
        if value.better == "zero" and metric.per_clip:
            size = replace(value, name=value.name + MAGNITUDE, title=f"|{value.title}|", better="lower")
            columns.append(ValueColumn(size, metric, magnitude=True))
    return tuple(columns)


def family(metric: MetricInfo) -> str:
    """What is before the first underscore of its name: `psnr` of `psnr_face`."""
    return metric.name.split("_")[0]


def _groups(evaluation: Evaluation) -> list[tuple[ValueColumn, ...]]:
    """Columns that may stand in one table: of one family, over the same clips, with the same coverage."""
    groups: dict[object, list[ValueColumn]] = {}
    for column in (column for metric in evaluation.metrics for column in columns_of(metric)):
        clips = tuple(_shared_clips(evaluation, column))
        covered = tuple(_coverage(evaluation, column, method) for method in evaluation.methods)
        key = (family(column.metric), column.metric.per_clip, clips, covered)
        groups.setdefault(key, []).append(column)
    return [tuple(columns) for columns in groups.values()]


def _block(evaluation: Evaluation, columns: tuple[ValueColumn, ...]) -> MetricTable:
    clips = _shared_clips(evaluation, columns[0])
    compared = tuple(m for m in evaluation.methods if _coverage(evaluation, columns[0], m).scored)
    cells = {
        (method, column.key): Cell(
            _figure(evaluation, column, method, clips, "shared") if method in compared else None,
            _figure(evaluation, column, method, _own_clips(evaluation, column, method), "own"),
            _coverage(evaluation, column, method),
        )
        for method in evaluation.methods
        for column in columns
    }
    cells = _same_kind(cells, columns, evaluation.methods)
    best = {column.key: name for column in columns if (name := _best(column, compared, cells))}
    block = MetricTable(columns, evaluation.methods, compared, len(clips), cells, best, ())
    return replace(block, notes=tuple(_block_notes(evaluation, block)))


def _coverage(evaluation: Evaluation, column: ValueColumn, method: str) -> Coverage:
    return evaluation.coverage(method, column.key.removesuffix(MAGNITUDE) if column.magnitude else column.key)


def _own_clips(evaluation: Evaluation, column: ValueColumn, method: str) -> Sequence[str]:
    if column.metric.per_clip:
        return sorted(column.of(evaluation, method))
    pooled = evaluation.pooled_for(method, column.metric.name, "own")
    return pooled.clips if pooled else ()


def _shared_clips(evaluation: Evaluation, column: ValueColumn) -> Sequence[str]:
    """Clips of all methods that have any; a method without a score would leave nothing to compare."""
    if column.metric.per_clip:
        found = {method: column.of(evaluation, method) for method in evaluation.methods}
        return common_clips({method: clips for method, clips in found.items() if clips})
    pooled = (evaluation.pooled_for(method, column.metric.name, "shared") for method in evaluation.methods)
    return next((one.clips for one in pooled if one is not None and one.clips), ())


def _figure(
    evaluation: Evaluation, column: ValueColumn, method: str, clips: Sequence[str], scope: Scope
) -> Interval | None:
    """The metric's own pooled value; with the bootstrap interval where that is the mean over clips."""
    pooled = evaluation.pooled_for(method, column.metric.name, scope)
    value = None if pooled is None or column.magnitude else pooled.values.get(column.key)
    if not column.metric.per_clip:
        return None if pooled is None or value is None else Interval(value, nan, nan, len(pooled.clips))
    if not clips:
        return None
    numbers = column.of(evaluation, method)
    interval = bootstrap_mean(np.array([numbers[clip] for clip in clips]))
    same_clips = pooled is not None and tuple(pooled.clips) == tuple(clips)
    if value is None or not same_clips or isclose(value, interval.mean, rel_tol=1e-5, abs_tol=1e-9):
        return interval
    return Interval(value, nan, nan, len(clips))


def _same_kind(
    cells: Mapping[tuple[str, str], Cell], columns: Sequence[ValueColumn], methods: Sequence[str]
) -> dict[tuple[str, str], Cell]:
    """Cells without interval in a column where one method has none, so that a coincidence of pooled value and
    mean (clips of one length, frames pooled) does not look like a difference between methods."""
    made = dict(cells)
    for column in columns:
        figures = [f for m in methods for f in (made[m, column.key].shared, made[m, column.key].own) if f]
        if any(one.clips > 1 and not isfinite(one.low) for one in figures):
            for method in methods:
                cell = made[method, column.key]
                made[method, column.key] = replace(cell, shared=_bare(cell.shared), own=_bare(cell.own))
    return made


def _bare(figure: Interval | None) -> Interval | None:
    return figure and replace(figure, low=nan, high=nan)


def _best(column: ValueColumn, methods: Sequence[str], cells: Mapping[tuple[str, str], Cell]) -> str | None:
    known = {m: one.mean for m in methods if (one := cells[m, column.key].shared) is not None}
    if len(known) < 2 or column.value.better not in ("higher", "lower"):
        return None
    ranked = sorted(known, key=lambda m: known[m], reverse=column.value.better == "higher")
    return None if known[ranked[0]] == known[ranked[1]] else ranked[0]


def _block_notes(evaluation: Evaluation, block: MetricTable) -> Iterator[str]:
    """What must be said with each table: protocol, settings, clips, weights."""
    yield f"Protocol {evaluation.protocol.get('name') or 'without name'}; LSE {lse_name(evaluation)}."
    for metric in block.metrics:
        if metric.settings:
            yield f"{metric.name}: {settings_text(metric.settings)}."
    yield _clips_note(block)
    shared = [block.cells[method, column.key].shared for column in block.columns for method in block.compared]
    unknown = any(one is not None and not isfinite(one.low) for one in shared)
    if block.columns[0].metric.per_clip and block.clips > 1 and unknown:
        yield "Where no interval stands, the metric's value for a set is not the mean over its clips."
    absent = [method for method in block.methods if method not in block.compared]
    if absent and block.compared:
        yield f"Without any score, and left out of the comparison: {', '.join(absent)}."
    names = {metric.name for metric in block.metrics}
    for pooled in evaluation.pooled:
        if pooled.metric in names and pooled.problem and pooled.scope == "shared":
            yield f"{pooled.metric} of {pooled.method} not computed: {pooled.problem}"
    unverified = dict.fromkeys(
        name for metric in block.metrics for name in evaluation.unverified(metric.name)
    )
    if unverified:
        yield f"UNVERIFIED WEIGHTS: {', '.join(unverified)}. Their hash is not the published one."


def _clips_note(block: MetricTable) -> str:
    per_clip = block.columns[0].metric.per_clip
    figure = "Mean [95 % bootstrap interval over clips]" if per_clip else "One value for all clips together"
    if not block.compared:
        return "No clip could be scored."
    if len(block.methods) < 2:
        return f"{figure}, {clips_text(block.clips)}."
    if len(block.compared) < 2:
        return f"{figure}, {clips_text(block.clips)}; no second method has any score."
    who = (
        f"all {len(block.methods)} methods" if block.compared == block.methods else ", ".join(block.compared)
    )
    return f"{figure}, over the {clips_text(block.clips)} that {who} have."


def clips_text(number: int) -> str:
    return f"{number:,} clip" if number == 1 else f"{number:,} clips"


def lse_name(evaluation: Evaluation) -> str:
    """Name of the LSE protocol."""
    return str(evaluation.protocol.get("lse") or "not stated")


def is_general(note: str) -> bool:
    """Whether a note of a block belongs to tables over several blocks too: protocol, unverified weights."""
    return note.startswith(("Protocol ", "UNVERIFIED WEIGHTS"))


def settings_text(settings: Mapping[str, object]) -> str:
    """`region face, resize 299`; nested settings in brackets."""

    def plain(value: object) -> str:
        if isinstance(value, Mapping):
            return "(" + settings_text(value) + ")"
        if isinstance(value, (list, tuple)):
            return " ".join(map(plain, value))
        return f"{value:g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{key.replace('_', ' ')} {plain(value)}" for key, value in settings.items())


def _difference(evaluation: Evaluation, column: ValueColumn, method: str, baseline: str) -> Difference | None:
    interval = paired_difference(column.of(evaluation, method), column.of(evaluation, baseline))
    if interval is None:
        return None
    return Difference(method, column, interval, _verdict(column, interval))


def _verdict(column: ValueColumn, interval: Interval) -> str:
    sure = interval.clips >= MIN_VERDICT_CLIPS and (interval.low > 0 or interval.high < 0)
    if column.value.better not in ("higher", "lower") or not sure:
        return ""
    return "better" if (interval.low > 0) == (column.value.better == "higher") else "worse"


def difference_matrix(results: ReportTables) -> list[tuple[ValueColumn, dict[str, Difference]]]:
    """The differences as a line a value, with an entry for every method that has it."""
    lines: dict[str, tuple[ValueColumn, dict[str, Difference]]] = {}
    for one in results.differences:
        lines.setdefault(one.column.key, (one.column, {}))[1][one.method] = one
    return list(lines.values())


def difference_text(difference: Difference | None) -> str:
    """Signed mean with its interval."""
    if difference is None:
        return "–"
    mean, interval = interval_text(difference.column, difference.interval)
    return f"{mean if mean.startswith('−') else '+' + mean} {interval}".strip()


def dropped(coverage: Coverage) -> int:
    """Clips without a score, whatever the cause."""
    return coverage.failed + coverage.missing


def interval_text(column: ValueColumn, interval: Interval | None) -> tuple[str, str]:
    """Mean, and interval in brackets; empty where there is none."""
    if interval is None:
        return "–", ""
    if not isfinite(interval.low):
        return column.text(interval.mean), ""
    return column.text(interval.mean), f"[{column.text(interval.low)}, {column.text(interval.high)}]"
