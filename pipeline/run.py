"""Shards and features on Ray: the only file of the pipeline that knows of it.

One task makes one shard from decode to Parquet; what passes between processes is a plan, a result and counts,
never a frame. The driver watches: a worker that dies or stands still costs one clip, not the run.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import ray
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)

from syncdiff.pipeline.config import PrepConfig
from syncdiff.pipeline.plan import Run, ShardPlan, ShardResult
from syncdiff.pipeline.prepare import Job, prepare_shard
from syncdiff.pipeline.records import ClipError

if TYPE_CHECKING:
    from syncdiff.pipeline.extractors import Extractor

POLL_S = 0.25
CONNECT_S = 5.0
STILL_S = 600.0  # a worker that shows no frame, row or clip for so long is taken for stuck
CRASHES_PER_CLIP = 2  # the first may be the machine's fault; the second is the clip's
MEMORY_KILLS_PER_CLIP = 4  # Ray ends workers when the machine runs short of memory, whoever uses it

# Nothing large passes through the object store, so it gets the smallest size Ray accepts.
OBJECT_STORE_BYTES = 80 << 20

_LOST = (WorkerCrashedError, OutOfMemoryError, NodeDiedError, TaskCancelledError)


class RunError(Exception):
    """The run itself could not go on (a full disk, no cluster); the message says why and what to do."""


@dataclass
class Progress:
    """What the workers have done so far, and what each shard is at (clip id, seconds since its last sign)."""

    clips: int = 0
    frames: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    current: dict[str, tuple[str, float]] = field(default_factory=dict)


class Monitor:
    """Lives in an actor. Workers tell it of each clip; the driver asks it for a `Progress`."""

    def __init__(self) -> None:
        self._shards: dict[str, Progress] = {}

    def begin(self, shard: str, clip_id: str) -> None:
        self._shards.setdefault(shard, Progress()).current[shard] = (clip_id, time.monotonic())

    def beat(self, shard: str, frames: int) -> None:
        progress = self._shards.setdefault(shard, Progress())
        progress.frames += frames
        clip_id, _ = progress.current.get(shard, ("", 0.0))
        progress.current[shard] = (clip_id, time.monotonic())

    def end(self, shard: str, reason: str | None) -> None:
        progress = self._shards.setdefault(shard, Progress())
        progress.clips += 1
        if reason is not None:
            progress.rejects[reason] += 1
        progress.current.clear()

    def lost(self, shard: str) -> str | None:
        """Forget what a lost worker did for its shard; the clip at which it was."""
        progress = self._shards.pop(shard, Progress())
        return progress.current[shard][0] if shard in progress.current else None

    def snapshot(self) -> Progress:
        now = time.monotonic()
        total = Progress()
        for progress in self._shards.values():
            total.clips += progress.clips
            total.frames += progress.frames
            total.rejects += progress.rejects
            total.current.update({k: (clip, now - seen) for k, (clip, seen) in progress.current.items()})
        return total


class RemoteWatch:
    """A worker's line to the monitor. Calls are not awaited: watching must not slow the work."""

    def __init__(self, monitor: Any, shard: str) -> None:
        self._monitor = monitor
        self._shard = shard

    def begin(self, clip_id: str) -> None:
        self._monitor.begin.remote(self._shard, clip_id)

    def beat(self, frames: int) -> None:
        self._monitor.beat.remote(self._shard, frames)

    def end(self, reason: str | None) -> None:
        self._monitor.end.remote(self._shard, reason)


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


def connect(workers: int | None, address: str | None) -> None:
    """Start Ray on this machine's cores, or join a running cluster. Raises RunError."""
    if address:
        check_reachable(address)
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(
                num_cpus=workers, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RunError(f"could not start or join Ray: {error}") from error


def check_reachable(address: str) -> None:
    """Raise RunError unless something listens at host:port (Ray itself would try for minutes)."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", "local": Ray answers these at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise RunError(f"no Ray cluster answers at {address} ({error}); check --ray-address") from error


def prepare_shards(
    run: Run,
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
    monitor = _monitor()
    remote: Any = ray.remote(num_cpus=1, num_gpus=work.config.gpus_per_worker, max_retries=0)(task)
    waiting = deque(plans)
    running: dict[Any, ShardPlan] = {}
    crashes: Counter[str] = Counter()
    refused: dict[str, ClipError] = {}
    while waiting or running:
        while waiting and len(running) < _window():
            plan = waiting.popleft()
            known = {c.id: refused[c.id] for c in plan.clips if c.id in refused}
            running[remote.remote(plan, work, monitor, known)] = plan
        ready, _ = ray.wait(list(running), timeout=POLL_S)
        for reference in ready:
            plan = running.pop(reference)
            try:
                run.record(ray.get(reference))
            except _LOST as error:
                _blame(ray.get(monitor.lost.remote(plan.name)), error, crashes, refused)
                waiting.append(plan)
            except RayTaskError as error:
                raise RunError(_explain(plan.name, error)) from error
        progress = ray.get(monitor.snapshot.remote())
        on_progress(progress)
        _stop_stuck(running, progress, still_s)


class ExtractorActor:
    """A process that loads an extractor once and makes shard after shard of features with it."""

    def __init__(self, load: Callable[[], Extractor], monitor: Any) -> None:
        from syncdiff.pipeline.feature_pass import extract_shard  # PyTorch: not for every driver

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
    monitor = _monitor()
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
                raise RunError(_explain(shard, error)) from error
            except RayActorError as error:
                crashes[shard] += 1
                if crashes[shard] > 1:
                    raise RunError(f"the extractor's process died twice at shard {shard}: {error}") from error
                waiting.append(shard)
                idle.append(actor.remote(load, monitor))
        on_progress(ray.get(monitor.snapshot.remote()))


def _monitor() -> Any:
    """A monitor that comes back if it is lost, without what it had counted: only the display suffers."""
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Monitor).remote()


def _window() -> int:
    """How many tasks to hand to Ray at once: enough to fill all cores, few enough to stay responsive."""
    return 2 * int(ray.cluster_resources().get("CPU", 1))


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


def _explain(shard: str, error: RayTaskError) -> str:
    cause = error.cause if isinstance(error.cause, Exception) else error
    if isinstance(cause, OSError):
        return f"shard {shard} could not be written: {cause}; make room or mend the disk, then run again"
    return f"shard {shard} failed: {type(cause).__name__}: {cause}"
