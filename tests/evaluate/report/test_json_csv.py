from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from syncdiff.evaluate.report.json_csv import harmless
from syncdiff.evaluate.report.write import write_report

from .synthetic_evaluation import synthetic


def test_metrics_json_has_all_settings_weights_and_figures(tmp_path: Path) -> None:
    write_report(synthetic(), tmp_path, clips=0)
    content = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert content["protocol"]["lse"] == "wav2lip-lrs"
    assert content["weights"][0]["sha256"] == "0" * 64 and not content["weights"][0]["verified"]
    values = {key: one for block in content["results"] for key, one in block["values"].items()}
    assert values["lse_d"]["blurred"]["shared"]["clips"] == 7
    assert values["lse_d"]["blurred"]["coverage"] == {"expected": 9, "scored": 7, "failed": 1, "missing": 1}
    assert values["fid"]["ours"]["own"] == {"mean": 4.5, "low": None, "high": None, "clips": 8, "units": 0}
    assert content["failures"][0]["reason"] == "no-sound"
    assert content["not_computed"][0]["metric"] == "avs"
    assert len(content["unmatched"]) == 2


def test_every_expected_clip_is_a_row(tmp_path: Path) -> None:
    evaluation = synthetic()
    write_report(evaluation, tmp_path, clips=0)
    rows = pq.read_table(tmp_path / "per_clip.parquet").to_pylist()
    assert len(rows) == 17
    missing = [row for row in rows if row["status"] == "missing"]
    assert [row["clip"] for row in missing] == ["spk/999"]
    failed = next(row for row in rows if row["method"] == "blurred" and row["clip"] == "spk/007")
    assert failed["lse_d"] is None and "no-sound" in failed["problems"] and failed["psnr"] is not None
    with (tmp_path / "per_clip.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["lse_d"]) for line in lines if line["lse_d"]] == [
        r["lse_d"] for r in rows if r["lse_d"]
    ]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", "\n=1", " =1", "＝1"])
def test_no_cell_of_the_csv_is_a_formula(text: str) -> None:
    assert harmless(text).startswith("'")
    assert harmless("spk/001") == "spk/001"


def test_hostile_names_in_the_csv(written: Path) -> None:
    with (written / "per_clip.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            assert not any(cell.startswith(("=", "+", "@")) for cell in row)
