"""Processes that die at any moment: the same command again gives the bytes of an undisturbed run, and no
process stays behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from .harness import Argv, Command, Row, difference, executable, run, seconds, tree

KILLS_A_ROUND = 5  # then the command runs through, and its bytes are compared

# Fault, what its victim's command line holds ("" for the driver), the signal, how often for a preparation
KILLS = (
    ("kill -9 of the driver", "", signal.SIGKILL, 50),
    ("SIGTERM to the driver", "", signal.SIGTERM, 12),
    ("SIGINT to the driver", "", signal.SIGINT, 12),
    ("kill -9 of a worker", "ray::", signal.SIGKILL, 20),
    ("kill -9 of the raylet", "raylet/raylet", signal.SIGKILL, 20),
    ("kill -9 of the GCS", "gcs_server", signal.SIGKILL, 20),
)
RAY_COMMANDS = ("prep", "features", "eval")  # training does without
CASES = [(c, *kill) for c in (*RAY_COMMANDS, "train") for kill in KILLS if c != "train" or not kill[1]]


@dataclass(frozen=True)
class Disturbed:
    """A command that is killed: what there is before it, its arguments, what must be the same after it."""

    begin: Callable[[Path], object]
    argv: Callable[[Path], Argv]
    outcome: Callable[[Path], dict[str, str]]


def only(tree_of: dict[str, str], suffix: str, part: str = "") -> dict[str, str]:
    return {name: digest for name, digest in tree_of.items() if name.endswith(suffix) and part in name}


@pytest.fixture(scope="module")
def commands(
    prepare: Callable[[Path], Argv], small_store: Path, small_raw: Path, untrained: Path
) -> dict[str, Disturbed]:
    prep, train = executable("syncdiff-prep"), executable("syncdiff-train")
    settings = ("optim.steps=24", "optim.batch_size=4", "log.checkpoint_every=6", "log.every=1")
    sets = [part for setting in settings for part in ("--set", setting)]
    pairs = [executable("syncdiff-eval"), small_raw, "--reference", small_raw, "--metrics", "psnr,ssim,lmd"]
    nothing = Path.exists  # there is nothing to make
    return {
        "prep": Disturbed(nothing, prepare, tree),
        "features": Disturbed(
            lambda out: shutil.copytree(small_store, out),
            lambda out: [prep, "features", "avhubert", out, "--checkpoint", untrained],
            tree,
        ),
        # equal weights after the last step mean equal losses all along
        "train": Disturbed(
            nothing,
            lambda out: [train, "train-tiny.yaml", "--data", small_store, "--out", out, *sets],
            lambda out: only(tree(out), ".safetensors", "24"),
        ),
        "eval": Disturbed(nothing, lambda out: [*pairs, "--out", out], lambda out: only(tree(out), ".csv")),
    }


@pytest.fixture(scope="module")
def undisturbed(
    commands: dict[str, Disturbed], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[dict[str, str], float]]:
    """What a command gives when it is left alone, and how long it takes; each runs once."""
    kept: dict[str, tuple[dict[str, str], float]] = {}

    def measure(name: str) -> tuple[dict[str, str], float]:
        if name not in kept:
            out = tmp_path_factory.mktemp(name) / "out"
            commands[name].begin(out)
            with seconds() as taken:
                code, said = run(*commands[name].argv(out))
            assert code == 0, said
            kept[name] = commands[name].outcome(out), taken[0]
            assert kept[name][0]
        return kept[name]

    return measure


@pytest.mark.parametrize(("name", "fault", "kind", "number", "count"), CASES)
def test_killed(
    row: Callable[[str, int], Row],
    times: Callable[[int], int],
    commands: dict[str, Disturbed],
    undisturbed: Callable[[str], tuple[dict[str, str], float]],
    tmp_path: Path,
    name: str,
    fault: str,
    kind: str,
    number: int,
    count: int,
) -> None:
    """After every few kills the command runs undisturbed and must give what it would have given at once."""
    wanted, whole_s = undisturbed(name)
    line, out = row(f"{name}: {fault}", 1), tmp_path / "out"
    moments = random.Random(line.seed)
    count = times(count if name == "prep" else -(-count // 3))
    while line.tried < count:
        problems = []
        commands[name].begin(out)
        for _ in range(min(KILLS_A_ROUND, count - line.tried)):
            problems.append(kill_once(Command(*commands[name].argv(out)), moments, whole_s, kind, number))
        code, said = run(*commands[name].argv(out))
        if code != 0 or "Traceback" in said:
            problems[-1] = problems[-1] or f"the run after it ended with {code}: {said[-600:]}"
        elif lost := difference(wanted, commands[name].outcome(out)):
            problems[-1] = problems[-1] or f"differs: {lost}"
        for problem in problems:
            line.count(problem)
        shutil.rmtree(out, ignore_errors=True)
    assert not line.lost


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
        return f"the command hung: {said[-300:]}"
    if "Traceback (most recent call last)" in said:
        return said[said.index("Traceback (most recent call last)") :][:1500]
    if left := command.left_over():
        return f"{len(left)} processes are still alive: {command.lines(left)}"
    return ""
