"""Scoring on Ray, where workers that die cost one metric of one clip; choosing and pooling."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from syncdiff.evaluate.aggregate import (
    PoolJob,
    assemble,
    index_outcomes,
    pool_jobs,
    pooled_mean,
    pooled_records,
)
from syncdiff.evaluate.metrics.registry import MetricChoice, choose_metrics
from syncdiff.evaluate.pairing.match import Matched
from syncdiff.evaluate.protocol import Protocol
from syncdiff.evaluate.records import Case, Failure, Unmatched
from syncdiff.evaluate.run_ray import POOLING, do_unit, pool_sets, score_cases, score_task, scoring_pool
from syncdiff.evaluate.score_clip import LOAD, CaseResult, Outcome, StorageError, Task, Work
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.ray_pool import DoUnit, Reporter
from syncdiff.pipeline.ray_start import connect
from syncdiff.pipeline.records import ClipError, RunError

WORK = Work(Protocol(), (), Path("/nowhere"))
METRICS = ("psnr", "ssim")


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    connect(2, None)
    yield
    ray.shutdown()


def case(clip: str, method: str = "ours") -> Case:
    return Case(method, clip, Path(clip), None, Path(clip))


def outcome(
    metric: str, value: float | None, stage: str = "x", method: str = "ours", clip: str = "a"
) -> Outcome:
    """A good outcome with this value, or a failed one."""
    if value is None:
        failure = Failure(method, clip, metric, stage, "reason", "detail")
        return Outcome(metric, {}, {}, (failure,))
    return Outcome(metric, {"region": "frame"}, {metric: value}, (), Path(f"{method}-{clip}.npz"))


def make_load(act: Callable[[str, str], None]) -> Callable[[Work], DoUnit]:
    """Workers that do `act(clip, metric)` at every metric that is not refused."""

    def score(task: Task, reporter: Reporter, refused: Mapping[str, ClipError]) -> CaseResult:
        outcomes = []
        reporter.begin("files")
        for name in task.metrics:
            reporter.begin(name)
            time.sleep(0.2)  # lets the message out before the process may end
            failures: tuple[Failure, ...] = ()
            if name in refused or "files" in refused:
                why = refused.get(name) or refused["files"]
                failures = (Failure("ours", task.case.clip, name, why.stage, why.reason, why.detail),)
            else:
                act(task.case.clip, name)
            outcomes.append(Outcome(name, {}, {} if failures else {name: 1.0}, failures))
        reporter.end(None)
        return CaseResult(task.case, None, tuple(outcomes), 0)

    return lambda work: score


def failed(results: list[CaseResult]) -> dict[str, list[tuple[str, str]]]:
    return {
        result.case.clip: [(o.metric, o.failures[0].reason) for o in result.outcomes if o.failures]
        for result in results
    }


def run(act: Callable[[str, str], None], **options: Any) -> list[CaseResult]:
    tasks = [Task(case(clip), METRICS) for clip in ("bad", "good")]
    with scoring_pool(WORK, load=make_load(act), **options) as pool:
        return score_cases(pool, tasks)


@pytest.mark.usefixtures("local_ray")
class TestWorkers:
    def test_one_that_dies_costs_that_metric_of_that_clip(self) -> None:
        def die(clip: str, metric: str) -> None:
            if (clip, metric) == ("bad", "psnr"):
                os.kill(os.getpid(), signal.SIGKILL)

        assert failed(run(die)) == {"bad": [("psnr", "worker-crashed")], "good": []}

    def test_one_that_stands_still_is_stopped(self) -> None:
        def sleep(clip: str, metric: str) -> None:
            if (clip, metric) == ("bad", "ssim"):
                time.sleep(3600)

        assert failed(run(sleep, stall_timeout_s=1.5)) == {"bad": [("ssim", "worker-stuck")], "good": []}

    def test_a_cache_that_cannot_be_written_ends_the_run_with_a_sentence(self) -> None:
        def full(clip: str, metric: str) -> None:
            raise StorageError("/cache cannot be written: No space left on device")

        with pytest.raises(RunError, match="No space left on device; make room"):
            run(full)

    def test_a_task_that_fails_otherwise_costs_its_clip(self) -> None:
        def fail(clip: str, metric: str) -> None:
            if clip == "bad":
                raise ArithmeticError("oh")

        reasons = failed(run(fail))
        assert [metric for metric, _ in reasons["bad"]] == list(METRICS) and not reasons["good"]

    def test_a_set_that_cannot_be_pooled_says_why(self) -> None:
        def pool(job: Any, reporter: Reporter, refused: Mapping[str, ClipError]) -> dict[str, float]:
            if job.method == "ours":
                raise ClipError("fid", "too-few-frames", "1 frame")
            return {"fid": 2.0}

        index = index_outcomes(
            CaseResult(case("a", m), None, (outcome("fid", 1.0, method=m),), 0) for m in ("ours", "theirs")
        )
        jobs = pool_jobs(index, MetricChoice(("fid",), (), ()), ("ours", "theirs"))
        with scoring_pool(WORK, load=lambda work: pool) as workers:
            ours, theirs = (pool_sets(workers, [job]) for job in jobs)
        assert {one.scope for one in ours} == {"shared", "own"} and "too-few-frames" in ours[0].problem
        assert theirs[0].values == {"fid": 2.0}


def two_methods() -> list[CaseResult]:
    """ours has a and b; theirs has b and c, and failed at a."""
    values = {
        ("ours", "a"): 1.0,
        ("ours", "b"): 2.0,
        ("theirs", "a"): None,
        ("theirs", "b"): 4.0,
        ("theirs", "c"): 6.0,
    }
    return [
        CaseResult(case(clip, method), None, (outcome("psnr", value, method=method, clip=clip),), 0)
        for (method, clip), value in values.items()
    ]


def test_methods_are_compared_on_the_clips_that_all_have() -> None:
    index = index_outcomes(two_methods())
    jobs = pool_jobs(index, MetricChoice(("psnr",), (), ()), ("ours", "theirs"))
    pooled = [one for job in jobs for one in pooled_records(job, pooled_mean(job, index))]
    assert {(one.method, one.scope): (one.clips, one.values["psnr"]) for one in pooled} == {
        ("ours", "shared"): (("b",), 2.0),
        ("ours", "own"): (("a", "b"), 1.5),
        ("theirs", "shared"): (("b",), 4.0),
        ("theirs", "own"): (("b", "c"), 5.0),
    }


def test_a_method_without_any_score_does_not_empty_the_comparison() -> None:
    results = [*two_methods(), CaseResult(case("a", "broken"), None, (outcome("psnr", None),), 0)]
    jobs = pool_jobs(index_outcomes(results), MetricChoice(("psnr",), (), ()), ("ours", "theirs", "broken"))
    assert {job.method: job.clips for job in jobs if "shared" in job.scopes} == {
        "ours": ("b",),
        "theirs": ("b",),
    }


def assembled(results: list[CaseResult]) -> Any:
    unmatched = (Unmatched("reference", "ours", "d", "no video was generated for it"),)
    matched = Matched(("ours", "theirs"), tuple(r.case for r in results), unmatched, ("a note",))
    chosen = MetricChoice(("psnr",), (), ())
    index = index_outcomes(results)
    jobs = pool_jobs(index, chosen, matched.methods)
    pooled = [one for job in jobs for one in pooled_records(job, pooled_mean(job, index))]
    return assemble(Protocol(name="p"), matched, chosen, results, pooled, versions={}, settings={})


def test_every_clip_that_was_to_be_scored_is_counted() -> None:
    evaluation = assembled(two_methods())
    ours, theirs = (evaluation.coverage(method, "psnr") for method in ("ours", "theirs"))
    assert (ours.expected, ours.scored, ours.failed, ours.missing) == (3, 2, 0, 1)
    assert (theirs.expected, theirs.scored, theirs.failed, theirs.missing) == (3, 2, 1, 0)
    assert evaluation.metrics[0].settings == {"region": "frame"}
    assert evaluation.notes == ("a note",)


def test_a_metric_that_no_clip_could_load_is_not_computed() -> None:
    results = [CaseResult(case("a"), None, (outcome("psnr", None, stage=LOAD),), 0)]
    evaluation = assembled(results)
    assert [(one.metric, one.reason) for one in evaluation.not_computed] == [("psnr", "cannot-load")]
    assert not evaluation.metrics and not evaluation.failures


def test_values_of_a_set_that_are_no_numbers_are_a_problem() -> None:
    (job,) = pool_jobs(
        index_outcomes([CaseResult(case("a"), None, (outcome("psnr", 1.0),), 0)]),
        MetricChoice(("psnr",), (), ()),
        ("ours",),
    )
    records = pooled_records(job, {"psnr": float(np.inf), "other": 1.0})
    assert all(one.values == {"other": 1.0} and one.problem == "psnr is inf" for one in records)


def test_metrics_are_chosen_by_protocol_references_and_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SYNCDIFF_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    protocol = Protocol(name="p", about="a test", metrics=("ssim", "psnr", "lse", "sharpness"))
    chosen = choose_metrics(protocol)
    assert chosen.metrics == ("psnr", "ssim", "sharpness")
    assert [(one.metric, one.reason) for one in chosen.not_computed] == [("lse", "no-weights")]
    assert "syncdiff-prep weights fetch syncnet" in chosen.not_computed[0].detail
    (tmp_path / "syncnet_v2.model").write_bytes(b"another file")
    assert "not the published" in choose_metrics(protocol, ["lse"]).not_computed[0].detail
    unverified = choose_metrics(protocol, ["lse"], allow_unverified=True)
    assert unverified.metrics == ("lse",) and not unverified.weights[0].verified
    bare = choose_metrics(protocol, ["psnr", "sharpness", "lmd"], has_references=False)
    assert bare.metrics == ("sharpness",)
    assert [(one.metric, one.reason) for one in bare.not_computed] == [
        ("psnr", "no-reference"),
        ("lmd", "not-in-protocol"),
    ]
    with pytest.raises(ConfigError, match="no metric 'pnsr'; did you mean 'psnr'"):
        choose_metrics(protocol, ["pnsr"])


class SilentReporter:
    """Takes reports without passing them on."""

    def begin(self, item: str) -> None: ...

    def on_progress(self, frames: int) -> None: ...

    def end(self, reason: str | None) -> None: ...


@pytest.mark.parametrize("refused", [("files",), ("a", "b", "c")])
def test_a_clip_at_which_too_many_metrics_lose_their_worker_is_given_up(refused: tuple[str, ...]) -> None:
    reasons = {name: ClipError("run", "worker-crashed", "died", transient=True) for name in refused}
    scorer: Any = None  # not asked
    result = score_task(scorer, Task(case("a"), METRICS), SilentReporter(), reasons)  # type: ignore[arg-type]
    assert failed([result]) == {"a": [(name, "worker-crashed") for name in METRICS]}


def test_a_set_at_which_the_worker_died_twice_is_not_pooled() -> None:
    job = PoolJob("ours", "fid", ("own",), ("a",), ())
    died = {POOLING: ClipError("run", "worker-crashed", "died", transient=True)}
    scorer: Any = None  # not asked
    with pytest.raises(ClipError, match="worker-crashed"):
        do_unit(scorer, job, SilentReporter(), died)  # type: ignore[arg-type]
