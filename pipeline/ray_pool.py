"""Work on Ray: a pool of workers, and the one loop that feeds them and outlives their deaths.

A worker is a process that loads what it needs once and then does unit after unit: a shard to make, a clip
to score. Between processes go plans, results and counts, never a frame. What each unit is at is known here,
on the driver: a worker that dies or stands still costs the item it was at (a clip, a metric), not the run.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeAlias

import ray
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from syncdiff.pipeline.records import ClipError, RunError

POLL_S = 0.25  # between two looks at progress and at workers that stand still
MONITOR_ANSWER_S = 5.0  # then the run goes on without its news
STALL_TIMEOUT_S = 600.0  # an item that shows no sign of progress for so long is taken for stuck
FAILED_STARTS = 6  # in a row; one may be the machine's fault
NODES_GONE_S = 20.0  # without a living node before the run ends; a server of Ray that starts anew takes less

LOST_WORKER = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError)

# How often a worker may be lost at an item until the item is refused, and what is said then. The first crash
# may be the machine's fault; Ray ends workers when memory runs short, whoever uses it; and a machine that is
# taken away says nothing about the item.
CRASHES = {
    "worker-crashed": (2, "died"),
    "worker-stuck": (2, "made no progress"),
    "out-of-memory": (4, "was ended because the machine ran out of memory"),
    "node-lost": (4, "was lost with its machine"),
}


@dataclass
class RunProgress:
    """What is done so far, of a unit or of a run. rejects: by reason."""

    clips: int = 0
    frames: int = 0
    rejects: Counter[str] = field(default_factory=Counter)

    def add(self, other: RunProgress) -> None:
        self.clips += other.clips
        self.frames += other.frames
        self.rejects += other.rejects


@dataclass(frozen=True)
class UnitState:
    """A unit at work: what is done, the item it is at (None between items), and how often it gave a sign."""

    progress: RunProgress = field(default_factory=RunProgress)
    item: str | None = None
    signs: int = 0


class Reporter:
    """A worker's line to the monitor. Calls are not awaited: watching must not slow the work.

    Each message holds the whole state of the unit, so that one that is lost is made up for by the next.
    """

    def __init__(self, monitor: Any, ticket: int) -> None:
        self.progress = RunProgress()
        self._monitor = monitor
        self._ticket = ticket
        self._item: str | None = None
        self._signs = 0

    def begin(self, item: str) -> None:
        """The next item: it is to blame for what happens until `end`."""
        self._item = item
        self._send()

    def on_progress(self, frames: int) -> None:
        """So many more frames are done; 0 is a sign of life."""
        self.progress.frames += frames
        self._send()

    def end(self, reason: str | None) -> None:
        """The item is done; `reason` says why it was rejected."""
        self.progress.clips += 1
        if reason is not None:
            self.progress.rejects[reason] += 1
        self._item = None
        self._send()

    def _send(self) -> None:
        self._signs += 1
        self._monitor.update.remote(self._ticket, UnitState(self.progress, self._item, self._signs))


# Does one unit: (the unit, a reporter, items to refuse and why) -> its result.
DoUnit: TypeAlias = Callable[[Any, Reporter, Mapping[str, ClipError]], Any]


class Monitor:
    """An actor that keeps the last message of each unit at work until the driver asks for it."""

    def __init__(self) -> None:
        self._states: dict[int, UnitState] = {}

    def update(self, ticket: int, state: UnitState) -> None:
        self._states[ticket] = state

    def states(self, tickets: list[int]) -> dict[int, UnitState]:
        """The states of these units; all others are forgotten."""
        self._states = {t: self._states[t] for t in tickets if t in self._states}
        return self._states


class Worker:
    """An actor that does unit after unit."""

    def __init__(self, load: Callable[[], DoUnit], monitor: Any) -> None:
        self._load = load
        self._monitor = monitor

    def start(self) -> str:
        """Load what the work needs; the id of the machine."""
        self._do = self._load()
        return str(ray.get_runtime_context().get_node_id())

    def work(self, ticket: int, unit: Any, refused: Mapping[str, ClipError]) -> tuple[Any, RunProgress]:
        reporter = Reporter(self._monitor, ticket)
        return self._do(unit, reporter, refused), reporter.progress


@dataclass
class CrashLog:
    """Lost workers, counted against the items at which they were, and the items refused for that, by unit."""

    counts: Counter[tuple[str, str | None, str]] = field(default_factory=Counter)
    refused: defaultdict[str, dict[str, ClipError]] = field(default_factory=lambda: defaultdict(dict))

    def record_crash(self, unit: str, item: str | None, reason: str, error: Exception) -> None:
        """Count a lost worker; refuse the item when it is lost there again.

        Raises RunError where a unit loses its workers at no item.
        """
        self.counts[unit, item, reason] += 1
        most, what = CRASHES[reason]
        if self.counts[unit, item, reason] < most:
            return
        if item is None:
            raise RunError(f"{unit}: the worker {what} {most} times and no item is to blame: {error}")
        detail = f"the worker {what} here, {most} times ({type(error).__name__})"
        self.refused[unit][item] = ClipError("run", reason, detail, transient=True)


@dataclass
class Assignment:
    """A unit in a worker's hands, and what the driver knows of it."""

    worker: Any
    node: str
    unit: str
    ticket: int
    state: UnitState = field(default_factory=UnitState)
    changed_at: float = field(default_factory=time.monotonic)
    stopped: bool = False

    def loss_reason(self, error: Exception) -> str:
        """Which of CRASHES the loss of the worker is."""
        if self.stopped:
            return "worker-stuck"
        if isinstance(error, OutOfMemoryError):
            return "out-of-memory"
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        return "worker-crashed" if self.node in alive else "node-lost"


class WorkerPool:
    """Workers that load the same things. A context manager: leaving it ends them. `connect` comes first.

    Each worker asks for one core: the stages are single-threaded on purpose, since whole clips side by side
    use cores better than threads within one. `gpus_per_worker` is the share of a GPU that it asks for. They
    are actors, not tasks: Ray would load a task's networks anew each time where a GPU is asked for.
    """

    def __init__(
        self,
        load: Callable[[], DoUnit],
        *,
        gpus_per_worker: float = 0.0,
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        self._load = load
        self._gpus = gpus_per_worker
        self._stall_timeout_s = stall_timeout_s
        self._worker: Any = ray.remote(num_cpus=1, num_gpus=gpus_per_worker)(Worker)
        # It comes back if it is lost; what it knew, the driver and the next messages know as well.
        self._monitor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Monitor).remote()
        self._starting: dict[Any, Any] = {}
        self._idle: list[tuple[Any, str]] = []
        self._running: dict[Any, Assignment] = {}
        self._failed_starts = 0
        self._nodes_seen_at = time.monotonic()
        self._tickets = count()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        busy = [assignment.worker for assignment in self._running.values()]
        for actor in (*self._starting.values(), *(worker for worker, _ in self._idle), *busy, self._monitor):
            ray.kill(actor)

    def run(
        self,
        units: Mapping[str, Any],
        on_progress: Callable[[RunProgress], None] = lambda progress: None,
    ) -> Iterator[tuple[str, Any]]:
        """Do these units; yield each name with its result, or with the exception that the work raised.

        Raises RunError where the run cannot go on.
        """
        waiting = deque(units)
        done = RunProgress()
        crashes = CrashLog()
        while waiting or self._running:
            self._start_workers(len(waiting) + len(self._running))
            while waiting and self._idle:
                (worker, node), unit, ticket = self._idle.pop(), waiting.popleft(), next(self._tickets)
                reference = worker.work.remote(ticket, units[unit], crashes.refused[unit])
                self._running[reference] = Assignment(worker, node, unit, ticket)
            ready, _ = ray.wait([*self._running, *self._starting], timeout=POLL_S)
            self._ask_monitor()
            for reference in ready:
                if reference in self._starting:
                    self._welcome(reference)
                    continue
                assignment = self._running.pop(reference)
                try:
                    result, progress = ray.get(reference)
                    done.add(progress)
                except LOST_WORKER as error:
                    ray.kill(assignment.worker)  # out of reach may not mean dead
                    reason = assignment.loss_reason(error)
                    crashes.record_crash(assignment.unit, assignment.state.item, reason, error)
                    waiting.append(assignment.unit)
                    continue
                except RayTaskError as error:
                    result = error.cause if isinstance(error.cause, Exception) else error
                self._idle.append((assignment.worker, assignment.node))
                yield assignment.unit, result
            total = RunProgress()
            for progress in (done, *(a.state.progress for a in self._running.values())):
                total.add(progress)
            on_progress(total)

    def _start_workers(self, units: int) -> None:
        """As many workers as there are cores, or shares of a GPU, for so many units."""
        resources = cluster_resources()
        if resources:
            self._nodes_seen_at = time.monotonic()
        elif time.monotonic() - self._nodes_seen_at > NODES_GONE_S:
            # Ray ends a driver whose raylet dies, but not one that is waiting for its first workers.
            raise RunError("no node of Ray is alive any more; the same command goes on from here")
        places = resources.get("GPU", 0.0) / self._gpus if self._gpus else resources.get("CPU", 1.0)
        present = len(self._starting) + len(self._idle) + len(self._running)
        for _ in range(min(max(1, int(places)), units) - present):
            worker = self._worker.remote(self._load, self._monitor)
            self._starting[worker.start.remote()] = worker

    def _welcome(self, reference: Any) -> None:
        """A worker has started, or failed to. It gets a unit only now: Ray may have kept it waiting."""
        worker = self._starting.pop(reference)
        try:
            self._idle.append((worker, ray.get(reference)))
            self._failed_starts = 0
        except LOST_WORKER as error:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise RunError(f"workers die before they begin: {error}") from error
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            raise RunError(f"a worker could not start: {type(cause).__name__}: {cause}") from error

    def _ask_monitor(self) -> None:
        """Learn what each unit is at, and stop workers that have stood still for too long."""
        running, now = self._running.values(), time.monotonic()
        try:
            question = self._monitor.states.remote([assignment.ticket for assignment in running])
            states: dict[int, UnitState] = ray.get(question, timeout=MONITOR_ANSWER_S)
        except (RayActorError, GetTimeoutError):
            for assignment in running:
                assignment.changed_at = now  # nobody stands still because nobody tells
            return
        for assignment in running:
            state = states.get(assignment.ticket, assignment.state)
            if state.signs != assignment.state.signs:
                assignment.state, assignment.changed_at = state, now
            still_s = now - assignment.changed_at
            if still_s > self._stall_timeout_s and state.item is not None and not assignment.stopped:
                assignment.stopped = True
                ray.kill(assignment.worker)


def cluster_resources() -> dict[str, float]:
    """What the cluster has of each resource, such as CPU and GPU."""
    return dict(ray.cluster_resources())
