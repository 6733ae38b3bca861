"""What is missing, too old or another is told from what is right; the command's exit code follows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from syncdiff.pipeline.doctor import software
from syncdiff.pipeline.doctor.software import (
    FFMPEG_NEEDS,
    ffmpeg_finding,
    ffmpeg_findings,
    package_findings,
    python_finding,
    ray_finding,
    read_constraints,
    weights_findings,
)
from syncdiff.pipeline.weights.published import FOLDER_VARIABLE


def test_python():
    assert python_finding("3.11.4").state == "ok"
    assert python_finding("3.9.2").state == python_finding("3.14.0").state == "fail"


def test_constraints_hold_for_this_python_only(tmp_path: Path):
    path = tmp_path / "constraints.txt"
    path.write_text(
        "# why\nnumpy==2.0 ; python_version >= '3'\nscipy==1.0 ; python_version < '3'\nodd line\n"
    )
    assert read_constraints(path) == {"numpy": "2.0"}
    assert read_constraints(tmp_path / "none") == {}


def test_missing_old_and_other_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("numpy==1.99\nrich==14.0\n")
    versions = {"numpy": "2.0", "rich": "14.0", "torch": "2.0"}
    needs = ["numpy>=1.26", "rich>=13", "torch>=2.6", "lpips>=0.1", "pytest>=8; extra == 'test'"]
    monkeypatch.setattr(software, "requires", lambda name: needs)
    monkeypatch.setattr(software, "installed_version", versions.get)
    found = {one.name: one for one in package_findings(constraints)}
    assert found["torch"].state == "fail" and ">=2.6" in found["torch"].detail
    assert found["lpips"].detail == "not installed" and found["lpips"].state == "fail"
    assert found["packages"].state == "warn" and "numpy 2.0 (tests: 1.99)" in found["packages"].detail
    assert set(found) == {"torch", "lpips", "packages"}


def test_this_ffmpeg_has_what_is_needed():
    assert {one.name: one.state for one in ffmpeg_findings()} == {"version": "ok"} | dict.fromkeys(
        FFMPEG_NEEDS, "ok"
    )


def test_an_ffmpeg_that_lacks_something_or_does_not_run(monkeypatch: pytest.MonkeyPatch):
    decoders = FFMPEG_NEEDS["decoders"]
    assert ffmpeg_finding("decoders", decoders, set(decoders) - {"hevc"}).state == "warn"
    finding = ffmpeg_finding("decoders", decoders, set(decoders) - {"h264"})
    assert finding.state == "fail" and "h264" in finding.detail
    monkeypatch.setattr(software, "ffmpeg_binary", lambda: "/nowhere/ffmpeg")
    assert [one.state for one in ffmpeg_findings()] == ["fail"]


def test_weights_that_are_missing_or_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "syncnet_v2.model").write_bytes(b"another")
    found = {one.name: one for one in weights_findings()}
    assert found["syncnet"].state == "fail"
    assert "weights fetch syncnet" in found["syncnet"].advice
    assert found["inception"].state == "warn" and "weights fetch inception" in found["inception"].advice


def test_a_ray_that_does_not_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(software, "RAY_TRIAL", "raise SystemExit('no port is free')")
    finding = ray_finding()
    assert finding.state == "fail" and "no port is free" in finding.detail


def test_the_command(prep: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path):
    done = prep("doctor", "--json", "--out", tmp_path / "data", check=False)
    rows = json.loads(done.stdout)
    assert done.returncode == int(any(row["state"] == "fail" for row in rows)), done.stderr
    states = {row["name"]: row["state"] for row in rows}
    assert states["Python"] == states["Ray"] == states["dlib and OpenCV"] == "ok"
    assert any(str(Path(sys.executable).parent) in row["detail"] for row in rows)
    assert not (tmp_path / "data").exists()
