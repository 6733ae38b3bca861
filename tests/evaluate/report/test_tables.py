from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from syncdiff.evaluate.bootstrap import bootstrap_mean
from syncdiff.evaluate.metrics.base import Value, face_lost
from syncdiff.evaluate.records import Evaluation, MetricInfo, Pooled, Score
from syncdiff.evaluate.report.tables import make_results
from syncdiff.evaluate.report.warnings import findings

from .synthetic_evaluation import printed, synthetic


def block_of(evaluation: Evaluation, key: str):  # type: ignore[no-untyped-def]
    return next(b for b in make_results(evaluation).blocks if any(c.key == key for c in b.columns))


def test_methods_are_compared_on_the_clips_that_all_have() -> None:
    block = block_of(synthetic(), "lse_d")
    assert block.clips == 7
    assert block.cells["ours", "lse_d"].shared.mean == pytest.approx(6.3)
    assert block.cells["ours", "lse_d"].own.mean == pytest.approx(6.35)
    assert block.cells["blurred", "lse_d"].shared.mean == pytest.approx(7.3)
    expected = bootstrap_mean(np.array([6 + 0.1 * k for k in range(7)]))
    assert block.cells["ours", "lse_d"].shared.low == expected.low
    assert "over the 7 clips that all 2 methods have." in block.notes[-2]


def test_coverage_counts_failed_and_missing_clips() -> None:
    coverage = block_of(synthetic(), "lse_d").coverage("blurred")
    assert (coverage.expected, coverage.scored, coverage.failed, coverage.missing) == (9, 7, 1, 1)


def test_values_with_other_coverage_have_their_own_table() -> None:
    evaluation = synthetic()
    assert block_of(evaluation, "psnr").clips == 8
    assert block_of(evaluation, "psnr_mouth").clips == 7


def test_method_without_scores_does_not_empty_the_comparison() -> None:
    evaluation = synthetic(("ours", "blurred", "broken"))
    evaluation = replace(evaluation, scores=tuple(s for s in evaluation.scores if s.method != "broken"))
    block = block_of(evaluation, "lse_d")
    assert block.clips == 7
    assert block.compared == ("ours", "blurred")
    assert any("left out of the comparison: broken" in note for note in block.notes)


def test_offsets_of_opposite_sign_do_not_cancel_out() -> None:
    block = block_of(synthetic(("ours",)), "sync_offset_abs")
    sizes = [k % 3 for k in range(8)]
    assert block.cells["ours", "sync_offset_abs"].shared.mean == pytest.approx(np.mean(sizes))


def test_best_is_by_direction() -> None:
    evaluation = synthetic()
    assert block_of(evaluation, "lse_c").best == {"lse_d": "ours", "lse_c": "ours"}


def test_set_metric_has_its_pooled_value_and_no_interval() -> None:
    block = block_of(synthetic(), "fid")
    cell = block.cells["blurred", "fid"]
    assert cell.shared.mean == 5.5
    assert np.isnan(cell.shared.low)
    assert any("region face, resize px 299" in note for note in block.notes)


def test_pool_other_than_the_mean_gets_no_interval_of_the_mean() -> None:
    evaluation = synthetic(("ours",))
    clips = tuple(sorted(evaluation.clip_values("ours", "psnr")))
    evaluation = replace(evaluation, pooled=(Pooled("ours", "psnr", "shared", clips, {"psnr": 40.0}),))
    cell = block_of(evaluation, "psnr").cells["ours", "psnr"]
    assert cell.shared.mean == 40.0
    assert np.isnan(cell.shared.low)


def test_intervals_stand_for_all_methods_of_a_column_or_for_none() -> None:
    evaluation = synthetic()
    clips = tuple(sorted(evaluation.clip_values("ours", "psnr")))
    evaluation = replace(evaluation, pooled=(Pooled("ours", "psnr", "shared", clips, {"psnr": 40.0}),))
    cells = block_of(evaluation, "psnr").cells
    assert np.isnan([cells[method, "psnr"].shared.low for method in evaluation.methods]).all()


def test_differences_are_paired_and_judged_by_direction() -> None:
    results = make_results(synthetic())
    found = {one.column.key: one for one in results.differences}
    assert found["lse_d"].interval.mean == pytest.approx(1.0)
    assert (found["lse_d"].verdict, found["lse_c"].verdict, found["psnr"].verdict) == ("worse",) * 3
    assert found["sync_offset"].verdict == ""
    turned = {d.column.key: d for d in make_results(synthetic(), "blurred").differences}
    assert turned["lse_d"].verdict == "better"
    with pytest.raises(ValueError, match="no method 'x'"):
        make_results(synthetic(), "x")


def test_few_clips_bear_no_verdict() -> None:
    assert {one.verdict for one in make_results(synthetic(clips=5)).differences} == {""}


def with_faces_lost() -> Evaluation:
    """PSNR's place taken by CSIM, in which the first method loses the face of one clip."""
    values = (Value("csim", "CSIM", "higher"), face_lost("csim"))
    csim = MetricInfo("identity", 1, values, True, True, False, (), {})
    evaluation = synthetic()
    scores = [
        Score(m, f"spk/{k:03d}", "identity", {"csim": 0.9, "csim_face_lost": 80.0 * (m == "ours" and k == 3)})
        for m in evaluation.methods
        for k in range(8)
    ]
    return replace(evaluation, metrics=(csim,), scores=tuple(scores), pooled=())


def test_means_with_misses_are_marked_and_said() -> None:
    evaluation = with_faces_lost()
    (block,) = make_results(evaluation).blocks
    assert [block.cells[m, "csim"].face_lost for m in evaluation.methods] == [10.0, 0.0]
    assert [block.cells[m, "csim"].mark for m in evaluation.methods] == ["†", ""]
    assert any("the face is lost, ours in 10.0 % of frames" in note for note in block.notes)
    assert "0.900†" in printed(evaluation)
    assert any("in 1 clip: they count as misses" in sentence for sentence in findings(evaluation))


def test_intervals_name_what_they_are_drawn_over() -> None:
    evaluation = replace(
        synthetic(clips=24), groups={f"spk/{k:03d}": f"s{k // 2:02d}" for k in range(24)}, unit="speaker"
    )
    results = make_results(evaluation)
    figure = results.blocks[1].cells["ours", "psnr"].shared
    assert figure is not None and (figure.clips, figure.units) == (24, 12)
    assert any("interval over 12 speakers]" in note for note in results.blocks[1].notes)
    one = make_results(replace(evaluation, groups=dict.fromkeys(evaluation.groups, "s")))
    assert any("over clips, all of one speaker]" in note for note in one.blocks[1].notes)


def test_verdicts_are_corrected_for_the_number_of_methods() -> None:
    """7 clips that all differ one way: p = 2/128, and not below 0.05 any more after a fourth rival."""

    def worse(rivals: int) -> set[str]:
        methods = ("ours", *(f"m{k}" for k in range(rivals)))
        rng = np.random.default_rng(0)
        scores = [
            Score(m, f"c{k}", "psnr", {"psnr": 30.0 - (m != "ours") * (1 + rng.random())})
            for m in methods
            for k in range(7)
        ]
        info = MetricInfo("psnr", 1, (Value("psnr", "PSNR", "higher", "dB", 2),), True, True, False, (), {})
        evaluation = replace(synthetic(), methods=methods, metrics=(info,), scores=tuple(scores), pooled=())
        return {one.verdict for one in make_results(evaluation).differences}

    assert worse(3) == {"worse"}
    assert worse(4) == {""}
