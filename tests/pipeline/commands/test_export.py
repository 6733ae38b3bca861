"""`syncdiff-prep export`: every target as a user calls it, and what it says of rows it leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from syncdiff.pipeline.cli import app

TARGETS = {
    "wav2lip": [],
    "webdataset": ["--features", "mel"],
    "frames": ["--features", "mel"],
    "preview": [],
    "avhubert": [],
    "mms-llama": [],
    "fairseq-features": ["--features", "logfbank"],
    "auto-avsr": [],
    "talklip": [],
    "latentsync": ["--size", "256"],
    "musetalk": [],
    "keysync": ["--wavlm", "logfbank"],
}


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_is_written(target: str, prepared_sample: Path, tmp_path: Path) -> None:
    code, said = run("export", target, prepared_sample, tmp_path, "--split", "val", *TARGETS[target])
    assert code == 0, said
    assert "clips written" in said and "left out" not in said
    assert any(tmp_path.rglob("*.*"))


def test_units_and_vsp_llm(prepared_sample: Path, tmp_path: Path) -> None:
    units = tmp_path / "units.npz"
    code, said = run(
        "features",
        "kmeans",
        prepared_sample,
        units,
        "--features",
        "logfbank",
        "--clusters",
        "4",
        "--split",
        "val",
    )
    assert code == 0 and "4 units" in said
    code, said = run(
        "export", "vsp-llm", prepared_sample, tmp_path / "vsp", "--clusters", units, "--split", "val"
    )
    assert code == 0 and (tmp_path / "vsp" / "valid.cluster_counts").is_file()


def test_landmarks_need_the_raw_data(prepared_sample: Path, sample_raw: Path, tmp_path: Path) -> None:
    options = ("--split", "val", "--raw")
    code, said = run("export", "landmarks", prepared_sample, tmp_path / "a", *options, sample_raw)
    assert code == 0 and any((tmp_path / "a").rglob("*.pkl"))
    code, said = run("export", "landmarks", prepared_sample, tmp_path / "b", *options, tmp_path)
    assert code == 0 and "the source cannot be read" in said


def test_a_target_that_lacks_its_features_says_so(prepared_sample: Path, tmp_path: Path) -> None:
    code, _ = run("export", "avh-align", prepared_sample, tmp_path, "--split", "val")
    assert code == 1
