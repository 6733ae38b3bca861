"""The two commands as a user types them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from syncdiff.model.config import TrainConfig, to_mapping


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name(name)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["syncdiff-train", "syncdiff-generate"])
def test_help_shows_examples(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0
    assert done.stdout.count(f"{name} ") >= 4


def test_wrong_usage_is_2_and_declared_failures_are_1(store: Path, tmp_path: Path) -> None:
    assert run("syncdiff-train").returncode == 2
    assert run("syncdiff-generate", "--nonsense").returncode == 2
    for name, arguments, message in (
        ("syncdiff-train", ("nothing.yaml",), "nothing.yaml"),
        (
            "syncdiff-train",
            ("train-tiny.yaml", "--data", tmp_path, "--out", tmp_path),
            "dataset.json is missing",
        ),
        ("syncdiff-train", ("train-tiny.yaml", "--set", "optim.lrr=1"), "did you mean lr?"),
        (
            "syncdiff-generate",
            ("--checkpoint", tmp_path, "--out", tmp_path, "--data", store),
            "no checkpoint here",
        ),
        ("syncdiff-generate", ("--checkpoint", tmp_path, "--out", tmp_path), "either --data"),
    ):
        done = run(name, *arguments)
        assert done.returncode == 1, done.stderr
        assert message in done.stderr.replace("\n", " ")
        assert "Traceback" not in done.stderr


def test_train_then_generate(store: Path, tiny: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    import json

    config.write_text(yaml.safe_dump(json.loads(json.dumps(to_mapping(tiny())))))
    done = run("syncdiff-train", config, "--data", store, "--out", tmp_path / "run", "--steps", 2)
    assert done.returncode == 0, done.stderr
    assert "checkpoint:" in done.stdout and "step 2/2" in done.stderr
    arguments = (
        "--checkpoint",
        tmp_path / "run",
        "--data",
        store,
        "--split",
        "test",
        "--out",
        tmp_path / "results",
    )
    done = run("syncdiff-generate", *arguments)
    assert done.returncode == 0, done.stderr
    assert "2 made, 0 were there, 0 left out" in done.stdout and "frames/s" in done.stdout
    again = run("syncdiff-generate", *arguments)
    assert "0 made, 2 were there" in again.stdout
    changed = run("syncdiff-generate", *arguments, "--steps", 1)
    assert changed.returncode == 1 and "sampling_steps: 2 -> 1" in changed.stderr


def test_overwrite_starts_again(store: Path, tiny: Callable[..., TrainConfig], tmp_path: Path) -> None:
    import json

    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(json.loads(json.dumps(to_mapping(tiny())))))
    arguments = (config, "--data", store, "--out", tmp_path / "run", "--steps", 1)
    assert run("syncdiff-train", *arguments).returncode == 0
    refused = run("syncdiff-train", *arguments, "--set", "seed=5")
    assert refused.returncode == 1 and "seed: 0 -> 5" in refused.stderr
    done = run("syncdiff-train", *arguments, "--set", "seed=5", "--overwrite")
    assert done.returncode == 0, done.stderr
