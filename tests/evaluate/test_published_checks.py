"""`syncdiff-eval check`: stand-in networks against figures made with them here, never the published ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import stand_in_weights
import torch
import yaml

from syncdiff.evaluate.metrics.sync.lse import sync_distances
from syncdiff.evaluate.metrics.sync.syncnet import SyncNet
from syncdiff.evaluate.published_checks import PUBLISHED, CheckInputs, run_check
from syncdiff.pipeline.weights.published import FOLDER_VARIABLE

from .conftest import picture, tone


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return folder


@pytest.fixture(scope="module")
def clip(make_media: Callable[..., Path]) -> Path:
    return make_media("example.avi", *picture(1.0), *tone(1.0), "-c:v", "mjpeg", "-c:a", "pcm_s16le")


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("syncdiff-eval")
    line = [str(program), "check", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=dict(os.environ))


def test_the_published_figures_are_the_ones_that_the_readmes_print():
    assert PUBLISHED == {
        "lse": {"sync_offset": 3, "lse_d": 5.353, "lse_c": 10.021},
        "lpips": {"ex_p0": 0.722, "ex_p1": 0.138},
    }


def test_what_is_missing_is_said_with_the_command_that_gets_it(weights: Path, tmp_path: Path):
    nowhere = CheckInputs(tmp_path / "example.avi", tmp_path, unverified_weights=True)
    for name, file in (("lse", "syncnet"), ("lpips", "alexnet"), ("fid", "inception")):
        (one,) = run_check(name, nowhere)
        assert one.state == "not checkable" and one.measured is None
        assert f"syncdiff-prep weights fetch {file}" in one.detail
    stand_in_weights.write_weights(weights, ["syncnet"])
    (one,) = run_check("lse", nowhere)
    assert one.state == "not checkable" and "curl -L --create-dirs -o" in one.detail


def test_pictures_equal_scikit_images_without_any_weights(weights: Path, tmp_path: Path):
    comparisons = run_check("pictures", CheckInputs(tmp_path / "a", tmp_path))
    assert [one.value for one in comparisons] == ["psnr", "ssim"]
    assert {one.state for one in comparisons} == {"reproduces"}


def test_a_figure_reproduces_or_differs_and_the_exit_code_says_so(
    weights: Path, clip: Path, syncnet: SyncNet, tmp_path: Path
):
    stand_in_weights.write_weights(weights, ["syncnet"])
    right = sync_distances(syncnet, clip, fps=None)
    figures = {"sync_offset": right.offset_frames, "lse_d": right.lse_d, "lse_c": right.lse_c}
    for shift, code, state in ((0.0, 0, "reproduces"), (0.5, 1, "differs")):
        expected = tmp_path / "expected.yaml"
        expected.write_text(yaml.safe_dump({"lse": {**figures, "lse_d": right.lse_d + shift}}))
        done = command(
            "--only", "lse", "--clip", clip, "--expect", expected, "--unverified-weights", "--json"
        )
        assert done.returncode == code, done.stdout + done.stderr
        row = next(row for row in json.loads(done.stdout) if row["value"] == "lse_d")
        assert row["state"] == state
        assert row["difference"] == pytest.approx(-shift, abs=1e-3)
        assert "UNVERIFIED WEIGHTS" in row["note"] and "--expect" in row["note"]


def test_lpips_reproduces_with_the_real_backbone(reference_weights: Path, weights: Path):
    with np.load(reference_weights / "derived_alexnet_features_torch_layout.npz") as arrays:
        backbone = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save(backbone, weights / "alexnet-owt-7be5be79.pth")
    pictures = reference_weights / "lpips_ref_images"
    comparisons = run_check("lpips", CheckInputs(pictures / "a", pictures, unverified_weights=True))
    assert [(one.value, one.state) for one in comparisons] == [
        ("ex_p0", "reproduces"),
        ("ex_p1", "reproduces"),
    ]
    assert all("UNVERIFIED" in one.note for one in comparisons)


@pytest.mark.long  # pytorch-fid's matrix square root alone takes minutes on a busy machine
@pytest.mark.timeout(1800)
def test_fid_equals_pytorch_fids_command(weights: Path, tmp_path: Path):
    stand_in_weights.write_weights(weights, ["inception"])
    rng = np.random.default_rng(0)
    folders = tmp_path / "a", tmp_path / "b"
    for folder, low in zip(folders, (0, 60), strict=True):
        folder.mkdir()
        for number in range(12):
            cv2.imwrite(str(folder / f"{number}.png"), rng.integers(low, 255, (64, 64, 3), np.uint8))
    (one,) = run_check("fid", CheckInputs(tmp_path / "c", tmp_path, folders, unverified_weights=True))
    assert one.state == "reproduces", one
    assert one.expected is not None and one.expected > 0


def test_wrong_usage(tmp_path: Path):
    (tmp_path / "bad.yaml").write_text("lse: 3\n")
    for arguments in (("--only", "psnr"), ("--expect", tmp_path / "bad.yaml")):
        done = command(*arguments)
        assert done.returncode == 2 and "error:" in done.stderr and "Traceback" not in done.stderr
