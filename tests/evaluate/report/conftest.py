from __future__ import annotations

from pathlib import Path

import pytest

from syncdiff.evaluate.report.published import comparable
from syncdiff.evaluate.report.write import write_report

from .synthetic_evaluation import NASTY, synthetic


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    evaluation = synthetic((NASTY, "b_&|lurred"), folder=out / "videos")
    write_report(evaluation, out, comparable("lrs2", "reconstruction", "wav2lip-lrs"), clips=2)
    return out
