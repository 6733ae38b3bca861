"""Shards and features on Ray: one task a shard, one actor an extractor.

One task makes one shard from decode to Parquet; what passes between processes is a plan, a result and counts,
never a frame. The driver watches: a worker that dies or stands still costs one clip, not the run.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import ray
from ray.exceptions import (
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    TaskCancelledError,
)

from syncdiff.pipeline.plan import ShardPlan
from syncdiff.pipeline.prep_config import PrepConfig
from syncdiff.pipeline.prepare_shard import Job, prepare_shard
from syncdiff.pipeline.records import ClipError
from syncdiff.pipeline.store.manifest import ShardResult
from syncdiff.pipeline.store.prep_run import PrepRun

if TYPE_CHECKING:
    from syncdiff.pipeline.features.extractor import Extractor

from syncdiff.pipeline.ray_pool import (
    LOST_WORKER,
    POLL_S,
    Progress,
    RemoteWatch,
    RunError,
    explain_failure,
    start_monitor,
    tasks_at_once,
)

STILL_S = 600.0  # a worker that shows no frame, row or clip for so long is taken for stuck
CRASHES_PER_CLIP = 2  # the first may be the machine's fault; the second is the clip's
MEMORY_KILLS_PER_CLIP = 4  # Ray ends workers when the machine runs short of memory, whoever uses it


@dataclass(frozen=True)
class Work:
    """What a worker needs to know besides its shard: the raw data set, the new one, and how."""

    layout: str
    raw: Path
    root: Path
    config: PrepConfig


@lru_cache(maxsize=1)
def _job(work: Work) -> Job:
    """One set of loaded models a worker process: Ray keeps processes and gives them shard after shard."""
    cv2.setNumThreads(1)  # the worker owns one core; OpenCV would take all of them
    return Job.load(work.layout, work.raw, work.root, work.config)


def shard_task(plan: ShardPlan, work: Work, monitor: Any, refused: Mapping[str, ClipError]) -> ShardResult:
    """What a worker does with one shard."""
    return prepare_shard(plan, _job(work), RemoteWatch(monitor, plan.name), refused)


def prepare_shards(
    run: PrepRun,
    plans: Sequence[ShardPlan],
    work: Work,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    *,
    task: Callable[..., ShardResult] = shard_task,
    still_s: float = STILL_S,
) -> None:
    """Make these shards and record each as it is finished. `connect` comes first.

    Each task asks for one core: the stages are single-threaded on purpose, since whole clips side by side use
    cores better than threads within one. A GPU tracker asks for the share its configuration names.
    """
    monitor = start_monitor()
    remote: Any = ray.remote(num_cpus=1, num_gpus=work.config.gpus_per_worker, max_retries=0)(task)
    waiting = deque(plans)
    running: dict[Any, ShardPlan] = {}
    crashes: Counter[str] = Counter()
    refused: dict[str, ClipError] = {}
    while waiting or running:
        while waiting and len(running) < tasks_at_once():
            plan = waiting.popleft()
            known = {c.id: refused[c.id] for c in plan.clips if c.id in refused}
            running[remote.remote(plan, work, monitor, known)] = plan
        ready, _ = ray.wait(list(running), timeout=POLL_S)
        for reference in ready:
            plan = running.pop(reference)
            try:
                run.record(ray.get(reference))
            except LOST_WORKER as error:
                _blame(ray.get(monitor.lost.remote(plan.name)), error, crashes, refused)
                waiting.append(plan)
            except RayTaskError as error:
                raise RunError(explain_failure(plan.name, error)) from error
        progress = ray.get(monitor.snapshot.remote())
        on_progress(progress)
        _stop_stuck(running, progress, still_s)


class ExtractorActor:
    """A process that loads an extractor once and makes shard after shard of features with it."""

    def __init__(self, load: Callable[[], Extractor], monitor: Any) -> None:
        from syncdiff.pipeline.features.add_to_store import extract_shard  # PyTorch: not for every driver

        self._extract = partial(extract_shard, extractor=load())
        self._monitor = monitor

    def extract(self, root: Path, shard: str) -> None:
        watch = RemoteWatch(self._monitor, shard)
        watch.begin("")
        self._extract(root, shard, beat=watch.beat)
        watch.end(None)


def extract_shards(
    root: Path,
    shards: Sequence[str],
    load: Callable[[], Extractor],
    gpus_per_worker: float = 0.0,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Make these shards of features with a pool of actors; `clips` of the progress counts shards.

    As many actors as there are shares of a GPU, or cores where no GPU is asked for; one thread each, since
    batches side by side use cores better than threads within one. An actor that dies is replaced, once for
    a shard.
    """
    monitor = start_monitor()
    actor: Any = ray.remote(num_cpus=1, num_gpus=gpus_per_worker)(ExtractorActor)
    resources = ray.cluster_resources()
    places = resources.get("GPU", 0.0) / gpus_per_worker if gpus_per_worker else resources.get("CPU", 1.0)
    idle = [actor.remote(load, monitor) for _ in range(max(1, min(int(places), len(shards))))]
    waiting = deque(shards)
    running: dict[Any, tuple[Any, str]] = {}
    crashes: Counter[str] = Counter()
    while waiting or running:
        while waiting and idle:
            worker, shard = idle.pop(), waiting.popleft()
            running[worker.extract.remote(root, shard)] = (worker, shard)
        ready, _ = ray.wait(list(running), timeout=POLL_S)
        for reference in ready:
            worker, shard = running.pop(reference)
            try:
                ray.get(reference)
                idle.append(worker)
            except RayTaskError as error:
                raise RunError(explain_failure(shard, error)) from error
            except RayActorError as error:
                crashes[shard] += 1
                if crashes[shard] > 1:
                    raise RunError(f"the extractor's process died twice at shard {shard}: {error}") from error
                waiting.append(shard)
                idle.append(actor.remote(load, monitor))
        on_progress(ray.get(monitor.snapshot.remote()))


def _blame(
    clip_id: str | None, error: Exception, crashes: Counter[str], refused: dict[str, ClipError]
) -> None:
    """Count a lost worker against the clip it was at; refuse the clip when that happens again."""
    reason, what, most = "worker-crashed", "died", CRASHES_PER_CLIP
    if isinstance(error, TaskCancelledError):
        reason, what = "worker-stuck", "made no progress"
    elif isinstance(error, OutOfMemoryError):
        reason, what, most = "out-of-memory", "was ended for want of memory", MEMORY_KILLS_PER_CLIP
    key = f"{reason} {clip_id}"
    crashes[key] += 1
    if crashes[key] < most:
        return
    if clip_id is None:
        raise RunError(f"the worker {what} {most} times before it began a clip: {error}")
    detail = f"the worker {what} at this clip, {most} times"
    refused[clip_id] = ClipError("run", reason, detail, transient=True)


def _stop_stuck(running: Mapping[Any, ShardPlan], progress: Progress, still_s: float) -> None:
    for reference, plan in running.items():
        _, idle_s = progress.current.get(plan.name, ("", 0.0))
        if idle_s > still_s:
            ray.cancel(reference, force=True)
