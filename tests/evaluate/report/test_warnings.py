from __future__ import annotations

from dataclasses import replace

from syncdiff.evaluate.records import Pooled
from syncdiff.evaluate.report.warnings import findings

from .synthetic_evaluation import synthetic


def test_fvd_of_few_videos_is_flagged() -> None:
    evaluation = synthetic()
    method = evaluation.methods[0]
    for videos, flagged in ((255, True), (256, False)):
        values = {"fvd": 300.0, "fvd_videos": float(videos)}
        pooled = (*evaluation.pooled, Pooled(method, "fvd", "own", ("a",), values))
        sentences = findings(replace(evaluation, pooled=pooled))
        said = [one for one in sentences if one.startswith("FVD of fewer than 256 videos")]
        assert bool(said) == flagged
        assert all(f"{method} 255" in one for one in said)
