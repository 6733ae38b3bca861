"""`syncdiff-eval` as a user runs it: what it says, writes, keeps, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from syncdiff.evaluate.cli import wanted_metrics
from syncdiff.evaluate.protocol import Protocol


def run_eval(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command, in this folder."""
    command = [str(Path(sys.executable).with_name("syncdiff-eval")), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, media: ModuleType) -> Path:
    """res/good and res/bad beside real/, three tiny clips; one reference more, one broken file."""
    root = tmp_path_factory.mktemp("eval")
    for folder in ("real", "res/good", "res/bad"):
        (root / folder).mkdir(parents=True)
    for seed, name in enumerate("abc"):
        frames = media.moving_frames(6, 48, 32, seed)
        media.picture_clip(root / f"real/{name}.mkv", frames)
        if name != "c":
            media.picture_clip(root / f"res/good/{name}.mkv", frames)
            media.picture_clip(root / f"res/bad/{name}.avi", frames[:, ::-1].copy())
    (root / "res/good/c.mp4").write_bytes(b"no video")
    return root


def test_from_folders_to_report(place: Path) -> None:
    arguments = ("res", "--reference", "real", "--metrics", "psnr,ssim", "--workers", "1", "--clips", "0")
    first = run_eval(place, *arguments)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "no partner (reference): bad: c" in first.stdout
    folder = place / "eval" / "res-reconstruction"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["methods"] == ["bad", "good"]
    psnr = next(block["values"]["psnr"] for block in metrics["results"] if "psnr" in block["values"])
    good = psnr["good"]
    assert good["coverage"] == {"expected": 3, "scored": 2, "failed": 1, "missing": 0}
    assert good["shared"]["mean"] == 100.0 > psnr["bad"]["shared"]["mean"]
    assert {(f["method"], f["clip"], f["stage"]) for f in metrics["failures"]} == {("good", "c", "media")}
    assert metrics["settings"]["metrics"] == ["psnr", "ssim"]
    assert {path.name for path in folder.iterdir()} >= {
        "report.html",
        "per_clip.csv",
        "table.tex",
        "table.md",
    }

    entries = {path: path.stat().st_mtime_ns for path in (place / "eval/cache").rglob("*.npz")}
    content = (folder / "metrics.json").read_bytes()
    assert run_eval(place, *arguments).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (place / "eval/cache").rglob("*.npz")} == entries
    assert (folder / "metrics.json").read_bytes() == content


def test_nothing_that_can_be_scored_is_exit_code_1(place: Path, tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    (tmp_path / "only/a.mp4").write_bytes(b"junk")
    done = run_eval(tmp_path, "only", "--metrics", "sharpness", "--workers", "1")
    assert done.returncode == 1
    assert "nothing could be scored" in done.stderr


def test_a_dry_run_writes_nothing_and_says_what_would_be_done(place: Path, tmp_path: Path) -> None:
    done = run_eval(tmp_path, place / "res", "--reference", place / "real", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "5 videos (bad 2, good 3), 5 with reference" in done.stdout
    assert "computed: " in done.stdout and "psnr" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["empty"], 1, "no videos in"),
        (["nowhere"], 2, "no such folder"),
        (["res", "--protocol", "recon"], 2, "no protocol 'recon'"),
        (["res", "--metrics", "pnsr"], 2, "did you mean 'psnr'"),
        (["res", "--metrics", "psnr"], 1, ""),
        (["res", "--reference", "real", "--data", "store"], 2, "not both"),
        (["res", "--raw", "real"], 2, "belong to --data"),
        (["res", "--data", "real"], 2, "no data set here"),
        (["res", "real", "--one-method"], 2, "for a single RESULTS"),
        (["res", "--compare-published", "lrs9"], 2, "no published figures for 'lrs9'"),
        (["res", "--reference", "real", "--baseline", "best"], 2, "no method 'best'; there are bad, good"),
        (["res", "--reference", "real", "--metrics", "psnr", "--rank-by", "x"], 2, "there are psnr"),
        (["."], 2, "say where with --out"),
        ([], 2, "Missing argument"),
    ],
)
def test_wrong_usage_and_empty_input_end_with_a_sentence(
    place: Path, arguments: list[str], code: int, message: str
) -> None:
    (place / "empty").mkdir(exist_ok=True)
    done = run_eval(place, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_help_shows_examples() -> None:
    done = run_eval(Path.cwd(), "--help")
    assert done.returncode == 0
    assert "syncdiff-eval results/ --reference" in " ".join(done.stdout.split())


def test_metrics_on_request_come_besides_the_protocols_own() -> None:
    protocol = Protocol(metrics=("psnr", "lse"), on_request=("niqe",))
    assert wanted_metrics(protocol, None, None) is None
    assert wanted_metrics(protocol, None, "niqe, ") == ("psnr", "lse", "niqe")
    assert wanted_metrics(protocol, "psnr", "niqe") == ("psnr", "niqe")


def test_a_face_network_that_is_not_there_is_wrong_usage(place: Path) -> None:
    done = run_eval(place, "res", "--arcface", "none.onnx")
    assert done.returncode == 2
    assert "none.onnx is not an .onnx file that is here" in done.stderr


def test_metrics_of_installed_packages_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name; nothing of theirs is imported for it."""
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[syncdiff.metrics]\nsmile = module_that_is_not_there:Smile\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    result = run_eval(tmp_path, "--list-metrics")
    assert result.returncode == 0, result.stderr
    assert "by --metrics or --also NAMES: smile." in result.stdout
