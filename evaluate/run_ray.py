"""Scoring on Ray: what a worker loads, and what it does with a clip or with a set of clips.

One unit of work is one clip with all its metrics, so that decoding and tracking are done once. A worker that
dies or stands still costs the metric it was at, for that clip.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from syncdiff.evaluate.aggregate import (
    PoolJob,
    assemble,
    index_outcomes,
    is_mean,
    pool_jobs,
    pooled_mean,
    pooled_records,
)
from syncdiff.evaluate.metrics.registry import MetricChoice
from syncdiff.evaluate.pairing.dataset_references import StoredClip
from syncdiff.evaluate.pairing.match import Matched
from syncdiff.evaluate.records import Evaluation, Pooled
from syncdiff.evaluate.score_clip import (
    CaseResult,
    Scorer,
    StorageError,
    Task,
    Work,
    computing_versions,
    failed_case,
)
from syncdiff.pipeline.ray_pool import DoUnit, Reporter, RunProgress, WorkerPool, cluster_resources
from syncdiff.pipeline.records import ClipError, RunError
from syncdiff.pipeline.store.manifest import package_version

STALL_TIMEOUT_S = 3600.0  # a metric that takes longer over one clip is taken for stuck; reading has limits
REFUSED_METRICS = 3  # of one clip, until the clip is refused: it is the clip then, not the metrics
FILES = "files"  # what a worker is at before the first metric: reading, hashing
POOLING = "pooling"
VERSIONS = "versions"
WORKER_GPU_BYTES = 4 << 30  # SyncNet, Inception, AlexNet, AV-HuBERT Large and CUDA itself, with room


def load_scoring(work: Work) -> DoUnit:
    """In a worker: what it does with a unit. Networks are loaded when a metric first needs them."""
    cv2.setNumThreads(1)  # the worker owns one core
    torch.set_num_threads(1)
    return partial(do_unit, Scorer(work))


def do_unit(
    scorer: Scorer, unit: Task | PoolJob | str, reporter: Reporter, refused: Mapping[str, ClipError]
) -> Any:
    """Score a clip (Task), pool a set of clips (PoolJob), or tell versions (VERSIONS)."""
    if isinstance(unit, Task):
        return score_task(scorer, unit, reporter, refused)
    if isinstance(unit, PoolJob):
        if POOLING in refused:
            raise refused[POOLING]
        reporter.begin(POOLING)
        return scorer.pool(unit.metric, unit.entries)
    return computing_versions("cuda" if torch.cuda.is_available() else "cpu")


def score_task(
    scorer: Scorer, task: Task, reporter: Reporter, refused: Mapping[str, ClipError]
) -> CaseResult:
    """A clip by all metrics of its task but the refused."""
    reporter.begin(FILES)
    if FILES in refused or len(refused) >= REFUSED_METRICS:
        result = failed_case(task, refused.get(FILES) or next(iter(refused.values())))
    else:
        result = scorer.score(task, reporter.begin, refused)
    reporter.on_progress(result.frames)
    reporter.end(None if any(outcome.entry for outcome in result.outcomes) else "failed")
    return result


def scoring_pool(
    work: Work, *, load: Callable[[Work], DoUnit] = load_scoring, stall_timeout_s: float = STALL_TIMEOUT_S
) -> WorkerPool:
    """Workers that score and pool, each with a share of a GPU where there is one. `connect` comes first."""
    return WorkerPool(partial(load, work), gpus_per_worker=gpu_share(), stall_timeout_s=stall_timeout_s)


def score_cases(
    pool: WorkerPool,
    tasks: Sequence[Task],
    on_progress: Callable[[RunProgress], None] = lambda progress: None,
) -> list[CaseResult]:
    """Score all tasks; results come in their order. Raises RunError."""
    names = {f"{n} {task.case.method}/{task.case.clip}": task for n, task in enumerate(tasks)}
    results = {}
    for name, result in pool.run(names, on_progress):
        _stop_where_storage_fails(result)
        failed = isinstance(result, Exception)
        results[name] = failed_case(names[name], result) if failed else result
    return [results[name] for name in names]


def pool_sets(pool: WorkerPool, jobs: Sequence[PoolJob]) -> list[Pooled]:
    """Pool sets of clips; a set that fails says why. Raises RunError."""
    names = {f"{n} {job.metric}": job for n, job in enumerate(jobs)}
    records: dict[str, list[Pooled]] = {}
    for name, result in pool.run(names):
        _stop_where_storage_fails(result)
        if isinstance(result, ClipError):
            result = str(result)
        elif isinstance(result, Exception):
            result = f"{type(result).__name__}: {result}"
        records[name] = pooled_records(names[name], result)
    return [record for name in names for record in records[name]]


def _stop_where_storage_fails(result: object) -> None:
    if isinstance(result, StorageError):
        raise RunError(f"{result}; make room or mend the disk, then run again") from result


def gpu_share() -> float:
    """The part of a GPU that a worker asks for: as many to a GPU as cores can feed and memory holds."""
    resources = cluster_resources()
    gpus = resources.get("GPU", 0)
    if not gpus:
        return 0.0
    here = torch.cuda.is_available()
    memory = torch.cuda.get_device_properties(0).total_memory if here else 4 * WORKER_GPU_BYTES
    fed = math.ceil(resources.get("CPU", 1) / gpus)
    workers = max(1, min(fed, int(memory) // WORKER_GPU_BYTES))
    return 10_000 // workers / 10_000  # Ray counts GPUs in ten-thousandths


def run_evaluation(
    work: Work,
    matched: Matched,
    chosen: MetricChoice,
    rows: Mapping[Path, StoredClip],
    settings: Mapping[str, Any],
    on_progress: Callable[[RunProgress], None] = lambda progress: None,
    on_times: Callable[[Mapping[str, float], int], None] = lambda seconds, frames: None,
) -> Evaluation:
    """Score all clips and pool them. `connect` comes first; `rows` says how to write stored references.

    on_times: told at the end what was measured now: seconds of all workers by metric, and frames. Raises
    RunError.
    """
    tasks = []
    for case in matched.cases:
        paths = dict.fromkeys(path for path in (case.reference, case.sound) if path is not None)
        files = tuple((path, rows[path]) for path in paths if path in rows)
        tasks.append(Task(case, chosen.metrics, files))
    entries = work.entries()
    with scoring_pool(work) as pool:
        results = score_cases(pool, tasks, on_progress)
        seconds = dict.fromkeys(chosen.metrics, 0.0)
        for outcome in (outcome for result in results for outcome in result.outcomes):
            seconds[outcome.metric] += outcome.seconds
        on_times(seconds, sum(result.frames for result in results))
        index = index_outcomes(results)
        jobs = pool_jobs(index, chosen, matched.methods)
        pooled = [
            record
            for job in jobs
            if is_mean(job.metric, entries)
            for record in pooled_records(job, pooled_mean(job, index))
        ]
        pooled += pool_sets(pool, [job for job in jobs if not is_mean(job.metric, entries)])
        versions = worker_versions(pool)
    return assemble(
        work.protocol,
        matched,
        chosen,
        results,
        pooled,
        versions=versions,
        settings=settings,
        entries=entries,
        reencoded=work.reencode is not None,
    )


def worker_versions(pool: WorkerPool) -> dict[str, str]:
    """Versions as a worker finds them, with the kind of device it computes on."""
    ((_, versions),) = pool.run({VERSIONS: VERSIONS})
    if isinstance(versions, Exception):
        raise RunError(f"a worker could not tell its versions: {versions}") from versions
    return {**versions, "python": platform.python_version(), "ray": package_version("ray")}
