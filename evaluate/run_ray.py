"""Scoring on Ray: the only file of the evaluation that knows of it.

One task scores one clip by all metrics, so that decoding and tracking are done once; what passes between
processes are paths and figures. A worker that dies or stands still costs the metric it was at, for that clip.
"""

from __future__ import annotations

import math
import platform
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import ray
import torch
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)

from syncdiff.evaluate.aggregate import (
    PoolJob,
    assemble,
    index_outcomes,
    is_mean,
    pool_jobs,
    pooled_mean,
    pooled_records,
)
from syncdiff.evaluate.metrics.registry import Chosen
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
from syncdiff.pipeline.ray_pool import Monitor, Progress, RemoteWatch, RunError, connect
from syncdiff.pipeline.records import ClipError

__all__ = ["RunError", "connect", "pool_sets", "score_cases"]

POLL_S = 0.25
STILL_S = 3600.0  # a metric that takes longer over one clip is taken for stuck; reading has limits of its own
CRASHES_PER_METRIC = 2  # the first may be the machine's fault (memory); the second is the clip's
CRASHES_PER_CASE = 6
FILES = "files"  # what a worker is at before the first metric: reading, hashing
WORKER_GPU_BYTES = 4 << 30  # SyncNet, Inception, AlexNet, AV-HuBERT Large and CUDA itself, with room

_LOST = (WorkerCrashedError, OutOfMemoryError, NodeDiedError, TaskCancelledError)


@lru_cache(maxsize=1)
def _scorer(work: Work) -> Scorer:
    """One set of loaded networks a worker process: Ray keeps processes and gives them clip after clip."""
    cv2.setNumThreads(1)  # the worker owns one core
    torch.set_num_threads(1)
    return Scorer(work)


def score_task(task: Task, work: Work, watch: RemoteWatch, refused: Mapping[str, ClipError]) -> CaseResult:
    """What a worker does with one clip."""
    watch.begin(FILES)
    if FILES in refused:
        result = failed_case(task, refused[FILES])
    else:
        result = _scorer(work).score(task, watch, refused)
    watch.beat(result.frames)
    watch.end(None if any(outcome.entry for outcome in result.outcomes) else "failed")
    return result


def pool_task(job: PoolJob, work: Work) -> dict[str, float]:
    """What a worker does with a set of clips."""
    return _scorer(work).pool(job.metric, job.entries)


def score_cases(
    work: Work,
    tasks: Sequence[Task],
    on_progress: Callable[[Progress], None] = lambda progress: None,
    *,
    score: Callable[..., CaseResult] = score_task,
    still_s: float = STILL_S,
) -> list[CaseResult]:
    """Score all tasks; results come in their order. `connect` comes first. Raises RunError.

    Each task asks for one core, since clips side by side use cores better than threads within one, and for
    a share of a GPU where there is one.
    """
    monitor: Any = ray.remote(num_cpus=0)(Monitor).remote()
    remote: Any = ray.remote(num_cpus=1, num_gpus=gpu_share(), max_retries=0)(score)
    waiting, running = deque(range(len(tasks))), dict[Any, int]()
    results: dict[int, CaseResult] = {}
    troubles = _Troubles()
    while waiting or running:
        while waiting and len(running) < _window():
            index = waiting.popleft()
            watch = RemoteWatch(monitor, str(index))
            running[remote.remote(tasks[index], work, watch, troubles.refused(index))] = index
        ready, _ = ray.wait(list(running), timeout=POLL_S)
        for reference in ready:
            index = running.pop(reference)
            try:
                results[index] = ray.get(reference)
            except _LOST as error:
                troubles.blame(index, ray.get(monitor.lost.remote(str(index))), error)
                waiting.append(index)
            except RayTaskError as error:
                results[index] = failed_case(tasks[index], _cause(error))
        progress: Progress = ray.get(monitor.snapshot.remote())
        on_progress(progress)
        _stop_stuck(running, progress, still_s)
    return [results[index] for index in range(len(tasks))]


def pool_sets(
    work: Work, jobs: Sequence[PoolJob], *, pool: Callable[..., dict[str, float]] = pool_task
) -> list[Pooled]:
    """Pool sets of clips, each in a task of its own; a set that fails says why. Raises RunError."""
    remote: Any = ray.remote(num_cpus=1, num_gpus=gpu_share(), max_retries=1)(pool)
    running = [remote.remote(job, work) for job in jobs]
    records: list[Pooled] = []
    for job, reference in zip(jobs, running, strict=True):
        values: dict[str, float] | str
        try:
            values = ray.get(reference)
        except _LOST as error:
            values = f"the worker died ({type(error).__name__})"
        except RayTaskError as error:
            cause = _cause(error)
            values = str(cause) if isinstance(cause, ClipError) else f"{type(cause).__name__}: {cause}"
        records += pooled_records(job, values)
    return records


def gpu_share() -> float:
    """The part of a GPU that a task asks for: as many workers to a GPU as cores can feed and memory holds."""
    resources: dict[str, float] = ray.cluster_resources()
    gpus = resources.get("GPU", 0)
    if not gpus:
        return 0.0
    here = torch.cuda.is_available()
    memory = torch.cuda.get_device_properties(0).total_memory if here else 4 * WORKER_GPU_BYTES
    fed = math.ceil(resources.get("CPU", 1) / gpus)
    workers = max(1, min(fed, int(memory) // WORKER_GPU_BYTES))
    return 10_000 // workers / 10_000  # Ray counts GPUs in ten-thousandths


@dataclass
class _Troubles:
    """Lost workers, counted against the clips and metrics at which they were."""

    crashes: Counter[tuple[int, str]] = field(default_factory=Counter)
    unwanted: dict[int, dict[str, ClipError]] = field(default_factory=dict)

    def refused(self, index: int) -> Mapping[str, ClipError]:
        return self.unwanted.get(index, {})

    def blame(self, index: int, metric: str | None, error: Exception) -> None:
        """Refuse a metric for a clip when a worker is lost at it again, and a clip that loses too many."""
        if metric is None:
            self.crashes[-1, ""] += 1
            if self.crashes[-1, ""] > CRASHES_PER_CASE:
                raise RunError(f"workers die before they begin a clip ({type(error).__name__}: {error})")
            return
        self.crashes[index, metric] += 1
        stuck = isinstance(error, TaskCancelledError)
        what, reason = ("made no progress", "worker-stuck") if stuck else ("died", "worker-crashed")
        count = self.crashes[index, metric]
        detail = f"the worker {what} at this clip and metric, {count} times ({type(error).__name__})"
        refusal = ClipError("run", reason, detail, transient=True)
        refused = self.unwanted.setdefault(index, {})
        if count >= CRASHES_PER_METRIC:
            refused[metric] = refusal
        if sum(n for (at, _), n in self.crashes.items() if at == index) >= CRASHES_PER_CASE:
            refused[FILES] = refusal


def _window() -> int:
    """How many tasks to hand to Ray at once: enough to fill all cores, few enough to stay responsive."""
    return 2 * int(ray.cluster_resources().get("CPU", 1))


def _cause(error: RayTaskError) -> Exception:
    """What a task raised. Raises RunError where the run cannot go on."""
    cause = error.cause if isinstance(error.cause, Exception) else error
    if isinstance(cause, StorageError):
        raise RunError(f"{cause}; make room or mend the disk, then run again") from error
    return cause


def _stop_stuck(running: Mapping[Any, int], progress: Progress, still_s: float) -> None:
    for reference, index in running.items():
        _, idle_s = progress.current.get(str(index), ("", 0.0))
        if idle_s > still_s:
            ray.cancel(reference, force=True)


def run_evaluation(
    work: Work,
    matched: Matched,
    chosen: Chosen,
    rows: Mapping[Path, StoredClip],
    settings: Mapping[str, Any],
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Evaluation:
    """Score all clips and pool them. `connect` comes first; `rows` says how to write stored references.

    Raises RunError.
    """
    tasks = []
    for case in matched.cases:
        paths = dict.fromkeys(path for path in (case.reference, case.sound) if path is not None)
        files = tuple((path, rows[path]) for path in paths if path in rows)
        tasks.append(Task(case, chosen.metrics, files))
    results = score_cases(work, tasks, on_progress)
    index = index_outcomes(results)
    jobs = pool_jobs(index, chosen, matched.methods)
    pooled = [
        one for job in jobs if is_mean(job.metric) for one in pooled_records(job, pooled_mean(job, index))
    ]
    pooled += pool_sets(work, [job for job in jobs if not is_mean(job.metric)])
    return assemble(
        work.protocol, matched, chosen, results, pooled, versions=worker_versions(), settings=settings
    )


def worker_versions() -> dict[str, str]:
    """Versions as a worker finds them, with the kind of device it computes on."""
    remote: Any = ray.remote(num_cpus=1, num_gpus=gpu_share())(_versions_task)
    found: dict[str, str] = ray.get(remote.remote())
    return {**found, "python": platform.python_version(), "ray": ray.__version__}


def _versions_task() -> dict[str, str]:
    return computing_versions("cuda" if torch.cuda.is_available() else "cpu")
