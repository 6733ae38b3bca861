"""The pool of workers: who is blamed for a lost worker, and what a lost monitor costs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import ray
from ray.exceptions import OutOfMemoryError, WorkerCrashedError

from syncdiff.pipeline.ray_pool import (
    Assignment,
    CrashLog,
    Monitor,
    Reporter,
    RunProgress,
    UnitState,
    WorkerPool,
)
from syncdiff.pipeline.ray_start import connect
from syncdiff.pipeline.records import ClipError, RunError


def lose(log: CrashLog, item: str | None, reason: str, unit: str = "train-00000", times: int = 1) -> None:
    for _ in range(times):
        log.record_crash(unit, item, reason, WorkerCrashedError())


class TestBlame:
    def test_the_second_crash_is_the_clips(self) -> None:
        log = CrashLog()
        lose(log, "a", "worker-crashed")
        lose(log, "b", "worker-crashed")
        lose(log, "a", "worker-stuck")
        assert not log.refused["train-00000"]
        lose(log, "a", "worker-crashed")
        assert list(log.refused["train-00000"]) == ["a"]
        refusal = log.refused["train-00000"]["a"]
        assert refusal.transient and "the worker died here, 2 times" in refusal.detail

    @pytest.mark.parametrize("reason", ["out-of-memory", "node-lost"])
    def test_the_machines_faults_are_the_clips_only_in_the_end(self, reason: str) -> None:
        log = CrashLog()
        lose(log, "a", reason, times=3)
        assert not log.refused["train-00000"]
        lose(log, "a", reason)
        assert log.refused["train-00000"]["a"].reason == reason

    def test_crashes_before_a_first_clip_end_the_run_where_they_repeat(self) -> None:
        log = CrashLog()
        for unit in (
            "train-00000",
            "train-00001",
            "val-00000",
        ):  # a lost machine costs each of its shards once
            lose(log, None, "worker-crashed", unit)
        with pytest.raises(RunError, match="val-00000: the worker died 2 times and no item is to blame"):
            lose(log, None, "worker-crashed", "val-00000")

    def test_a_lost_machine_is_told_from_a_lost_worker(self, local_ray: None) -> None:
        here = ray.nodes()[0]["NodeID"]
        error = WorkerCrashedError()
        assert Assignment(None, here, "u", 0).loss_reason(error) == "worker-crashed"
        assert Assignment(None, "another", "u", 0).loss_reason(error) == "node-lost"
        assert Assignment(None, here, "u", 0).loss_reason(OutOfMemoryError("no memory")) == "out-of-memory"
        assert Assignment(None, here, "u", 0, stopped=True).loss_reason(error) == "worker-stuck"


def test_the_monitor_keeps_units_at_work_only() -> None:
    monitor = Monitor()
    for ticket in range(3):
        monitor.update(ticket, UnitState(item=str(ticket), signs=1))
    assert list(monitor.states([1, 7])) == [1]
    assert list(monitor.states([0, 1, 2])) == [1]


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    connect(2, None)
    yield
    ray.shutdown()


def load_with(act: Callable[[str, Reporter], None]) -> Callable[[], Any]:
    """Workers whose units have one item each, named like the unit."""

    def work(unit: str, reporter: Reporter, refused: Mapping[str, ClipError]) -> str:
        if unit in refused:
            raise refused[unit]
        reporter.begin(unit)
        time.sleep(0.3)  # lets the message out before the process may end
        act(unit, reporter)
        reporter.end(None)
        return unit

    return lambda: work


@pytest.mark.usefixtures("local_ray")
class TestPool:
    def test_a_lost_monitor_costs_neither_counts_nor_blame(self) -> None:
        def act(unit: str, reporter: Reporter) -> None:
            if unit == "a":
                ray.kill(reporter._monitor, no_restart=False)  # what it knew is gone
                time.sleep(2.0)
                os.kill(os.getpid(), signal.SIGKILL)

        seen: list[int] = []

        def show(progress: RunProgress) -> None:
            seen.append(progress.clips)

        with WorkerPool(load_with(act)) as pool:
            results = dict(pool.run({"a": "a", "b": "b"}, show))
        assert results["b"] == "b"
        assert isinstance(results["a"], ClipError) and results["a"].reason == "worker-crashed"
        assert seen[-1] == 1 and seen == sorted(seen)  # what is done does not become less

    def test_workers_that_cannot_load_end_the_run_with_a_sentence(self) -> None:
        def load() -> Any:
            raise ValueError("no such weights")

        with WorkerPool(load) as pool, pytest.raises(RunError, match="ValueError: no such weights"):
            list(pool.run({"a": "a"}))

    def test_workers_that_die_while_they_load_end_the_run(self) -> None:
        def load() -> Any:
            os.kill(os.getpid(), signal.SIGKILL)

        with WorkerPool(load) as pool, pytest.raises(RunError, match="workers die before they begin"):
            list(pool.run({"a": "a"}))

    def test_what_the_work_raises_is_its_result_and_a_pool_works_again(self) -> None:
        def act(unit: str, reporter: Reporter) -> None:
            if unit == "bad":
                raise ArithmeticError("oh")

        with WorkerPool(load_with(act)) as pool:
            results = dict(pool.run({name: name for name in ("bad", "good", "better")}))
            assert isinstance(results.pop("bad"), ArithmeticError)
            assert results == {"good": "good", "better": "better"}
            assert dict(pool.run({"again": "again"})) == {"again": "again"}


def test_an_absent_cluster_is_said_to_be_absent() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RunError, match=f"no Ray cluster answers at ray://127.0.0.1:{port}"):
        connect(None, f"ray://127.0.0.1:{port}")


@pytest.mark.long  # Ray takes half a minute to call a node dead
def test_a_node_that_dies_before_its_first_worker_is_ready_ends_the_run() -> None:
    """Ray ends a driver that has lost its raylet, but not always: that one would wait for ever."""
    code = (
        "import os, signal, time\n"
        "from syncdiff.pipeline.ray_pool import WorkerPool\n"
        "from syncdiff.pipeline.ray_start import connect\n"
        "def load():\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n"
        "    time.sleep(120)\n"
        "connect(1, None)\n"
        "with WorkerPool(load) as pool:\n"
        "    list(pool.run({'a': 'a'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "no node of Ray is alive any more" in done.stderr, done.stderr
