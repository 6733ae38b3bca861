"""Processes that die at any moment: the same command again gives the bytes of an undisturbed run, and no
process stays behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from .harness import Command, Row, difference, executable, run, seconds, tree

Argv = list[str | Path]
KILLS_A_ROUND = 5  # then the command runs through, and its bytes are compared


def disturb(
    row: Row,
    count: int,
    command: Argv,
    out: Path,
    wanted: dict[str, str],
    whole_s: float,
    kind: str,
    number: int,
) -> None:
    """Kill the command (kind "") or a process that it started, `count` times at random moments.

    After every few kills the command runs undisturbed and must give the wanted tree.
    """
    random_moments = random.Random(row.seed)
    while row.tried < count:
        problems = []
        hits = min(KILLS_A_ROUND, count - row.tried)
        for _ in range(hits):
            problems.append(kill_once(Command(*command), random_moments, whole_s, kind, number))
        code, said = run(*command)
        if code != 0 or "Traceback" in said:
            problems[-1] = problems[-1] or f"the run after it ended with {code}: {said[-300:]}"
        elif lost := difference(wanted, tree(out)):
            problems[-1] = problems[-1] or f"differs: {lost}"
        for problem in problems:
            row.count(problem)
        shutil.rmtree(out)


def kill_once(command: Command, moments: random.Random, whole_s: float, kind: str, number: int) -> str:
    """Send the signal at a random moment of the run; a problem in words, or an empty text."""
    deadline = time.monotonic() + moments.uniform(0.05, whole_s)
    while time.monotonic() < deadline and command.process.poll() is None:
        time.sleep(0.02)
    while kind and command.process.poll() is None and not (targets := command.processes(kind)):
        time.sleep(0.05)
    if command.process.poll() is None:
        try:
            if kind:
                os.kill(moments.choice(targets), number)
            else:
                command.process.send_signal(number)
        except ProcessLookupError:
            pass
    code, said = command.end()
    if code == -999:
        return "the command hung"
    if "Traceback (most recent call last)" in said:
        return said[said.index("Traceback (most recent call last)") :][:1500]
    if left := command.left_over():
        return f"{len(left)} processes are still alive"
    return ""


@pytest.fixture(scope="module")
def whole_s(
    prepare: Callable[[Path], Argv], small_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> float:
    """How long an undisturbed preparation takes here, in seconds."""
    with seconds() as taken:
        code, said = run(*prepare(tmp_path_factory.mktemp("timed") / "store"))
    assert code == 0, said
    return taken[0]


@pytest.mark.parametrize(
    ("name", "kind", "number", "count"),
    [
        ("kill -9 of the driver", "", signal.SIGKILL, 50),
        ("SIGTERM to the driver", "", signal.SIGTERM, 12),
        ("SIGINT to the driver", "", signal.SIGINT, 12),
        ("kill -9 of a worker", "ray::", signal.SIGKILL, 20),
        ("kill -9 of the raylet", "raylet/raylet", signal.SIGKILL, 20),
        ("kill -9 of the GCS", "gcs_server", signal.SIGKILL, 20),
    ],
)
def test_preparation(
    row: Callable[[str, int], Row],
    times: Callable[[int], int],
    prepare: Callable[[Path], Argv],
    small_store: Path,
    whole_s: float,
    tmp_path: Path,
    name: str,
    kind: str,
    number: int,
    count: int,
) -> None:
    line = row(f"prep: {name}", 1)
    out = tmp_path / "store"
    disturb(line, times(count), prepare(out), out, tree(small_store), whole_s, kind, number)
    assert not line.lost


def test_features(
    row: Callable[[str, int], Row],
    times: Callable[[int], int],
    small_store: Path,
    untrained: Path,
    tmp_path: Path,
) -> None:
    def command(store: Path) -> Argv:
        prep = executable("syncdiff-prep")
        return [prep, "features", "avhubert", store, "--checkpoint", untrained]

    whole = tmp_path / "whole"
    shutil.copytree(small_store, whole)
    with seconds() as taken:
        code, said = run(*command(whole))
    assert code == 0, said
    line = row("features: kill -9 of the driver", 2)
    moments = random.Random(2)
    out = tmp_path / "store"
    while line.tried < times(12):
        shutil.copytree(small_store, out)
        problem = kill_once(Command(*command(out)), moments, taken[0], "", signal.SIGKILL)
        code, said = run(*command(out))
        problem = problem or (said[-300:] if code else difference(tree(whole), tree(out)))
        line.count(problem)
        shutil.rmtree(out)
    assert not line.lost


def train(store: Path, out: Path) -> Argv:
    settings = ("optim.steps=24", "optim.batch_size=4", "log.checkpoint_every=6", "log.every=1")
    sets = [part for setting in settings for part in ("--set", setting)]
    return [executable("syncdiff-train"), "train-tiny.yaml", "--data", store, "--out", out, *sets]


def weights_of(run_folder: Path) -> dict[str, str]:
    """Hashes of the last checkpoint: equal weights after the last step mean equal losses all along."""
    return {n: h for n, h in tree(run_folder).items() if n.endswith(".safetensors") and "24" in n}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_training(
    row: Callable[[str, int], Row],
    times: Callable[[int], int],
    small_store: Path,
    tmp_path: Path,
    number: int,
) -> None:
    with seconds() as taken:
        code, said = run(*train(small_store, tmp_path / "whole"))
    assert code == 0, said
    wanted = weights_of(tmp_path / "whole")
    assert wanted
    line = row(f"train: {signal.Signals(number).name}", 3)
    moments, out = random.Random(3), tmp_path / "run"
    while line.tried < times(6):
        problem = kill_once(Command(*train(small_store, out)), moments, taken[0], "", number)
        code, said = run(*train(small_store, out))
        problem = problem or (said[-300:] if code else difference(wanted, weights_of(out)))
        line.count(problem)
        shutil.rmtree(out)
    assert not line.lost


def test_evaluation(
    row: Callable[[str, int], Row], times: Callable[[int], int], small_raw: Path, tmp_path: Path
) -> None:
    def command(out: Path, cache: Sequence[str | Path] = ()) -> Argv:
        metrics = ("--metrics", "psnr,ssim,lmd")
        return [
            executable("syncdiff-eval"),
            small_raw,
            "--reference",
            small_raw,
            "--out",
            out,
            *metrics,
            *cache,
        ]

    with seconds() as taken:
        code, said = run(*command(tmp_path / "whole"))
    assert code == 0, said
    wanted = {n: h for n, h in tree(tmp_path / "whole").items() if n.endswith(".csv")}
    line = row("eval: kill -9 of the driver", 4)
    moments, out = random.Random(4), tmp_path / "eval"
    while line.tried < times(12):
        problem = kill_once(Command(*command(out)), moments, taken[0], "", signal.SIGKILL)
        code, said = run(*command(out))
        got = {n: h for n, h in tree(out).items() if n.endswith(".csv")}
        line.count(problem or (said[-300:] if code else difference(wanted, got)))
        shutil.rmtree(out)
    assert not line.lost
