"""From the outcomes of single clips to the record of an evaluation: shared clips, pooled values, counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from syncdiff.evaluate.media_notes import media_notes
from syncdiff.evaluate.metrics.base import Metric
from syncdiff.evaluate.metrics.registry import METRICS, Entry, MetricChoice
from syncdiff.evaluate.pairing.match import Matched
from syncdiff.evaluate.protocol import Protocol
from syncdiff.evaluate.records import (
    Evaluation,
    MetricInfo,
    NotComputed,
    Pooled,
    Scope,
    Score,
    WeightUse,
)
from syncdiff.evaluate.score_clip import LOAD, CaseResult, Outcome

Entries: TypeAlias = Mapping[str, Entry]
Index: TypeAlias = Mapping[tuple[str, str], Mapping[str, Outcome]]
"""(method, metric) -> clip -> outcome."""


@dataclass(frozen=True)
class PoolJob:
    """A set of clips whose values are to be pooled, and their statistics in the cache."""

    method: str
    metric: str
    scopes: tuple[Scope, ...]
    clips: tuple[str, ...]
    entries: tuple[Path, ...]


def index_outcomes(results: Iterable[CaseResult]) -> Index:
    """Outcomes by what they belong to."""
    index: dict[tuple[str, str], dict[str, Outcome]] = {}
    for result in results:
        for outcome in result.outcomes:
            index.setdefault((result.case.method, outcome.metric), {})[result.case.clip] = outcome
    return index


def pool_jobs(index: Index, chosen: MetricChoice, methods: Sequence[str]) -> list[PoolJob]:
    """What is to be pooled: for each metric and method the clips that all methods have, and its own."""
    jobs = []
    for metric in chosen.metrics:
        scored = {method: _scored(index.get((method, metric), {})) for method in methods}
        present = [set(entries) for entries in scored.values() if entries]
        shared = set.intersection(*present) if present else set()
        for method, entries in scored.items():
            sets: dict[tuple[str, ...], list[Scope]] = {}
            sets.setdefault(tuple(sorted(shared & set(entries))), []).append("shared")
            sets.setdefault(tuple(sorted(entries)), []).append("own")
            for clips, scopes in sets.items():
                if clips:
                    files = tuple(entries[clip] for clip in clips)
                    jobs.append(PoolJob(method, metric, tuple(scopes), clips, files))
    return jobs


def is_mean(metric: str, entries: Entries = METRICS) -> bool:
    """Whether a metric's value for a set is the mean over its clips."""
    kind = entries[metric].metric
    return kind.per_clip and kind.pool is Metric.pool


def pooled_mean(job: PoolJob, index: Index) -> dict[str, float]:
    """The unweighted mean over clips, for each value that a clip of the job has."""
    outcomes = index[job.method, job.metric]
    rows = [outcomes[clip].values for clip in job.clips]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def pooled_records(job: PoolJob, values: Mapping[str, float] | str) -> list[Pooled]:
    """A record for each scope of the job; `values` may be the reason why there are none."""
    if isinstance(values, str):
        finite, problem = {}, values
    else:
        finite = {name: float(value) for name, value in values.items() if isfinite(value)}
        problem = "; ".join(f"{name} is {float(values[name])}" for name in values if name not in finite)
    return [Pooled(job.method, job.metric, scope, job.clips, finite, problem) for scope in job.scopes]


def assemble(
    protocol: Protocol,
    matched: Matched,
    chosen: MetricChoice,
    results: Sequence[CaseResult],
    pooled: Sequence[Pooled],
    *,
    versions: Mapping[str, str],
    settings: Mapping[str, Any],
    entries: Entries = METRICS,
    reencoded: bool = False,
) -> Evaluation:
    """The record of it all. A metric that could not be loaded anywhere moves to `not_computed`.

    reencoded: what was scored are copies by one codec.
    """
    media = [result.media for result in results if result.media is not None]
    outcomes = [(result.case, outcome) for result in results for outcome in result.outcomes]
    unloaded = _unloaded(chosen.metrics, [outcome for _, outcome in outcomes])
    metrics = tuple(_info(n, entries[n], protocol, results) for n in chosen.metrics if n not in unloaded)
    kept = [(case, outcome) for case, outcome in outcomes if outcome.metric not in unloaded]
    extra = tuple(NotComputed(name, "cannot-load", detail) for name, detail in unloaded.items())
    return Evaluation(
        protocol=protocol.to_dict(),
        methods=matched.methods,
        cases=matched.cases,
        unmatched=matched.unmatched,
        metrics=metrics,
        not_computed=(*chosen.not_computed, *extra),
        scores=tuple(Score(c.method, c.clip, o.metric, o.values) for c, o in kept if o.values),
        failures=tuple(dict.fromkeys(failure for _, outcome in kept for failure in outcome.failures)),
        pooled=tuple(values for values in pooled if values.metric not in unloaded),
        mismatches=tuple(result.mismatch for result in results if result.mismatch is not None),
        weights=_weight_uses(chosen, metrics),
        versions=versions,
        settings=settings,
        notes=(*matched.notes, *media_notes(matched.methods, media, reencoded=reencoded)),
        groups=matched.groups.of,
        unit=matched.groups.unit,
    )


def _scored(outcomes: Mapping[str, Outcome]) -> dict[str, Path]:
    """Clip -> its statistics, for the clips that went well."""
    return {clip: o.entry for clip, o in outcomes.items() if o.entry is not None and not o.failures}


def _unloaded(metrics: Sequence[str], outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Metrics that every clip found impossible to load, and why."""
    reasons = {}
    for name in metrics:
        failures = [outcome.failures[:1] for outcome in outcomes if outcome.metric == name]
        if failures and all(first and first[0].stage == LOAD for first in failures):
            reasons[name] = failures[0][0].detail
    return reasons


def _info(name: str, entry: Entry, protocol: Protocol, results: Sequence[CaseResult]) -> MetricInfo:
    kind = entry.metric
    settings = next((o.settings for r in results for o in r.outcomes if o.metric == name and o.settings), {})
    return MetricInfo(
        name=name,
        version=kind.version,
        values=kind.values,
        per_clip=kind.per_clip,
        needs_reference=kind.needs_reference,
        needs_sound=kind.needs_sound,
        weights=entry.weights(protocol),
        settings=settings,
    )


def _weight_uses(chosen: MetricChoice, metrics: Sequence[MetricInfo]) -> tuple[WeightUse, ...]:
    uses = []
    for file in chosen.weights:
        users = tuple(metric.name for metric in metrics if file.entry.name in metric.weights)
        uses.append(WeightUse(file.entry.name, file.entry.file, file.sha256, file.verified, users))
    return tuple(use for use in uses if use.metrics)
