"""The two commands as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from syncdiff.model.cli import generate_main, train_main
from syncdiff.model.config import TrainConfig
from syncdiff.pipeline.config import to_mapping

Result = tuple[int, str, str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command in this process: exit code, output and errors on one line each."""

    def command(name: str, *arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "400")
        code = 0
        try:
            {"syncdiff-train": train_main, "syncdiff-generate": generate_main}[name]()
        except SystemExit as error:
            code = int(error.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return command


@pytest.mark.parametrize("name", ["syncdiff-train", "syncdiff-generate"])
def test_help_shows_examples(name: str) -> None:
    """In a process of its own, as installed."""
    command = [str(Path(sys.executable).with_name(name)), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("--out ") >= 4 and "--data" in done.stdout


def test_help_does_not_wait_for_pytorch() -> None:
    program = (
        "import sys\nfrom syncdiff.model.cli import train_main\nsys.argv[1:] = ['--help']\n"
        "try:\n    train_main()\nfinally:\n    assert not {'torch', 'diffusers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)


def test_wrong_usage_is_2(run: Callable[..., Result]) -> None:
    assert run("syncdiff-train")[0] == 2
    assert run("syncdiff-generate", "--nonsense")[0] == 2


def test_known_failures_are_a_message_and_an_exit_code(
    run: Callable[..., Result], store: Path, tmp_path: Path
) -> None:
    for expected, name, arguments, message in (
        (2, "syncdiff-train", ("nothing.yaml",), "nothing.yaml"),
        (
            2,
            "syncdiff-train",
            ("train-tiny.yaml", "--data", tmp_path, "--out", tmp_path),
            "dataset.json is missing",
        ),
        (2, "syncdiff-train", ("train-tiny.yaml", "--set", "optim.lrr=1"), "did you mean 'optim.lr'?"),
        (
            1,
            "syncdiff-generate",
            ("--checkpoint", tmp_path, "--out", tmp_path, "--data", store),
            "no checkpoint here",
        ),
        (2, "syncdiff-generate", ("--checkpoint", tmp_path, "--out", tmp_path), "either --data"),
    ):
        code, _, err = run(name, *arguments)
        assert code == expected, err
        assert err.startswith("error: ") and message in err


def write_config(config: TrainConfig, path: Path) -> Path:
    path.write_text(yaml.safe_dump(json.loads(json.dumps(to_mapping(config)))))
    return path


def test_train_then_generate(
    run: Callable[..., Result], store: Path, tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = write_config(tiny(), tmp_path / "c.yaml")
    code, out, err = run("syncdiff-train", config, "--data", store, "--out", tmp_path / "run", "--steps", 2)
    assert code == 0, err
    assert "checkpoint:" in out and "step 2/2" in err
    results = tmp_path / "results"
    arguments = ("--checkpoint", tmp_path / "run", "--data", store, "--split", "test", "--out", results)
    code, out, err = run("syncdiff-generate", *arguments)
    assert code == 0, err
    assert "2 made, 0 were there, 0 left out" in out and "frames/s" in out
    assert "0 made, 2 were there" in run("syncdiff-generate", *arguments)[1]
    code, _, err = run("syncdiff-generate", *arguments, "--steps", 1)
    assert code == 2 and "sampling_steps: 2 -> 1" in err


def test_nothing_made_is_a_failure(
    run: Callable[..., Result], trained: Path, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    silent = make_store(tmp_path / "data", {"test": [12]}, silent=(0,))
    code, _, err = run(
        "syncdiff-generate", "--checkpoint", trained, "--data", silent, "--out", tmp_path / "out"
    )
    assert code == 1 and "left out" in err and "nothing could be made" in err


def test_overwrite_starts_again(
    run: Callable[..., Result], store: Path, tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = write_config(tiny(), tmp_path / "c.yaml")
    arguments = (config, "--data", store, "--out", tmp_path / "run", "--steps", 1)
    assert run("syncdiff-train", *arguments)[0] == 0
    code, _, err = run("syncdiff-train", *arguments, "--set", "seed=5")
    assert code == 1 and "seed: 0 -> 5" in err
    code, _, err = run("syncdiff-train", *arguments, "--set", "seed=5", "--overwrite")
    assert code == 0, err
