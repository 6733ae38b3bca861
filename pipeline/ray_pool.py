"""Starting or joining Ray, and watching what its workers are at."""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)

POLL_S = 0.25
CONNECT_S = 5.0

# Nothing large passes through the object store, so it gets the smallest size Ray accepts.
OBJECT_STORE_BYTES = 80 << 20

LOST_WORKER = (WorkerCrashedError, OutOfMemoryError, NodeDiedError, TaskCancelledError)


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


def start_monitor() -> Any:
    """A monitor that comes back if it is lost, without what it had counted: only the display suffers."""
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Monitor).remote()


def tasks_at_once() -> int:
    """How many tasks to hand to Ray at once: enough to fill all cores, few enough to stay responsive."""
    return 2 * int(ray.cluster_resources().get("CPU", 1))


def explain_failure(shard: str, error: RayTaskError) -> str:
    cause = error.cause if isinstance(error.cause, Exception) else error
    if isinstance(cause, OSError):
        return f"shard {shard} could not be written: {cause}; make room or mend the disk, then run again"
    return f"shard {shard} failed: {type(cause).__name__}: {cause}"
