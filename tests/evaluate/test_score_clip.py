"""Scoring of a clip: what is kept and found again, what makes it stale, and how each failure is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from syncdiff.evaluate.cache import Cache, Key, load_entry, read_inputs
from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.registry import Entry
from syncdiff.evaluate.protocol import Protocol
from syncdiff.evaluate.records import Case
from syncdiff.evaluate.score_clip import LOAD, CaseResult, Scorer, StorageError, Task, Work
from syncdiff.pipeline.records import ClipError
from syncdiff.pipeline.weights.published import WeightEntry, WeightFile

Measure = Callable[[ClipPair], Statistics]


def brightness(pair: ClipPair) -> Statistics:
    return {"mean": np.float64(np.mean([frame.mean() for frame in pair.generated.frames()]))}


class Bench:
    """A scorer of one fake metric, whose measuring is counted."""

    def __init__(self, folder: Path, measure: Measure = brightness, **facts: Any) -> None:
        self.folder = folder
        self.calls = 0
        self.weights = facts.pop("files", ())
        self.protocol = facts.pop("protocol", Protocol())
        self.chosen = facts.pop("settings", {})
        self.make = facts.pop("make", None)
        bench = self

        class Fake(Metric):
            name = "fake"
            values = (Value("fake", "Fake", "higher"),)
            needs_reference = False

            def settings(self) -> dict[str, Any]:
                return dict(bench.chosen)

            def measure(self, pair: ClipPair) -> Statistics:
                bench.calls += 1
                return measure(pair)

            def score(self, statistics: Statistics) -> dict[str, float]:
                return {"fake": float(statistics["mean"])}

        for name, value in facts.items():
            setattr(Fake, name, value)
        self.kind = Fake

    def score(self, case: Case, **options: Any) -> CaseResult:
        """By a scorer of its own, as a new process would."""
        entry = Entry(self.kind, self.make or (lambda tools, protocol: self.kind()))
        work = Work(self.protocol, tuple(self.weights), self.folder)
        return Scorer(work, {"fake": entry}).score(Task(case, ("fake",)), **options)


@pytest.fixture
def case(tmp_path: Path, media: ModuleType) -> Case:
    frames = media.moving_frames(6, 32, 24)
    made = media.picture_clip(tmp_path / "made.mkv", frames)
    true = media.picture_clip(tmp_path / "true.mkv", frames[:5])
    return Case("ours", "a", made, true, made)


def failure(result: CaseResult) -> tuple[str, str, bool]:
    (outcome,) = result.outcomes
    (one,) = outcome.failures
    assert (one.method, one.clip, one.metric) == ("ours", "a", "fake")
    assert not outcome.values
    return one.stage, one.reason, one.unexpected


def weight_file(sha256: str) -> WeightFile:
    entry = WeightEntry("net", "net.pt", (), "tests", "none", "nowhere")
    return WeightFile(entry, Path("net.pt"), sha256, True)


def test_a_clip_is_measured_once_and_found_again(tmp_path: Path, case: Case) -> None:
    bench = Bench(tmp_path / "cache")
    first, again = bench.score(case), bench.score(case)
    assert bench.calls == 1
    assert (first.outcomes[0].new, again.outcomes[0].new) == (True, False)
    assert first.outcomes[0].values == again.outcomes[0].values
    assert first.mismatch == again.mismatch
    assert first.mismatch is not None and (first.mismatch.frames, first.mismatch.flagged) == (1, True)


def test_the_same_bytes_under_another_name_and_method_are_found_again(tmp_path: Path, case: Case) -> None:
    bench = Bench(tmp_path / "cache")
    bench.score(case)
    copy = tmp_path / "copy.mkv"
    copy.write_bytes(case.generated.read_bytes())
    bench.score(Case("theirs", "b", copy, case.reference, copy))
    assert bench.calls == 1


@pytest.mark.parametrize("role", ["generated", "reference", "sound"])
def test_other_bytes_in_any_file_are_measured_anew(
    tmp_path: Path, case: Case, media: ModuleType, role: str
) -> None:
    case = replace(case, sound=tmp_path / "sound.wav")
    case.sound.write_bytes(b"some sound")
    bench = Bench(tmp_path / "cache")
    bench.score(case)
    path: Path = getattr(case, role)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # same size
    bench.score(case)
    assert bench.calls == 2
    path.write_bytes(data)
    bench.score(case)
    assert bench.calls == 2


@pytest.mark.parametrize(("needs", "calls"), [(True, 2), (False, 1)])
def test_what_is_said_counts_for_metrics_that_need_it(
    tmp_path: Path, case: Case, needs: bool, calls: int
) -> None:
    bench = Bench(tmp_path / "cache", needs_transcript=needs)
    for said in ("so be it", "so be it", "or not"):
        bench.score(replace(case, transcript=said))
    assert bench.calls == calls


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"version": 1}, {"version": 2}),
        ({"settings": {"size": 1}}, {"settings": {"size": 2}}),
        (
            {"files": (weight_file("a"),), "weights": ("net",)},
            {"files": (weight_file("b"),), "weights": ("net",)},
        ),
        ({"protocol": Protocol(tracker="dlib")}, {"protocol": Protocol(tracker="face-alignment")}),
    ],
    ids=["version", "settings", "weights", "tracker"],
)
def test_another_way_of_computing_is_computed_anew(
    tmp_path: Path, case: Case, before: dict[str, Any], after: dict[str, Any]
) -> None:
    old, new = Bench(tmp_path / "cache", **before), Bench(tmp_path / "cache", **after)
    for bench in (old, new, old, new):
        bench.score(case)
    assert (old.calls, new.calls) == (1, 1)


def test_a_protocols_other_settings_keep_what_is_known(tmp_path: Path, case: Case) -> None:
    bench = Bench(tmp_path / "cache")
    bench.score(case)
    bench.protocol = Protocol(name="other", metrics=("fake",))
    bench.score(case)
    assert bench.calls == 1


def test_a_damaged_entry_is_computed_anew(tmp_path: Path, case: Case) -> None:
    bench = Bench(tmp_path / "cache")
    entry = bench.score(case).outcomes[0].entry
    assert entry is not None
    for data in (b"", entry.read_bytes()[:40], b"x" * 200):
        calls = bench.calls
        entry.write_bytes(data)
        assert load_entry(entry) is None
        assert bench.score(case).outcomes[0].values
        assert bench.calls == calls + 1


def test_declared_failures_are_kept_and_transient_ones_tried_again(tmp_path: Path, case: Case) -> None:
    for transient, calls in ((False, 1), (True, 2)):

        def fail(pair: ClipPair, transient: bool = transient) -> Statistics:
            raise ClipError("track", "no-face", "none", transient=transient)

        bench = Bench(tmp_path / f"cache-{transient}", fail)
        assert failure(bench.score(case)) == ("track", "no-face", False)
        assert failure(bench.score(case)) == ("track", "no-face", False)
        assert bench.calls == calls


@pytest.mark.parametrize(
    "cause",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), OSError(28, "No space left on device")],
    ids=["CUDA", "memory", "disk"],
)
@pytest.mark.parametrize("declared", [False, True])
def test_what_the_machine_lacked_is_no_property_of_the_clip(
    tmp_path: Path, case: Case, cause: Exception, declared: bool
) -> None:
    failing = [True]

    def measure(pair: ClipPair) -> Statistics:
        if not failing:
            return {"mean": np.float64(1)}
        failing.pop()
        if declared:
            raise ClipError("track", "no-face", "the network found nothing") from cause
        raise cause

    bench = Bench(tmp_path / "cache", measure)
    assert not bench.score(case).outcomes[0].values
    assert bench.score(case).outcomes[0].values == {"fake": 1}


def test_a_network_that_found_no_memory_is_loaded_again(tmp_path: Path, case: Case) -> None:
    bench, errors = Bench(tmp_path / "cache"), [torch.OutOfMemoryError("CUDA out of memory")]

    def make(*_: Any) -> Metric:
        if errors:
            raise errors.pop()
        return bench.kind()

    scorer = Scorer(Work(bench.protocol, (), bench.folder), {"fake": Entry(bench.kind, make)})
    assert failure(scorer.score(Task(case, ("fake",)))) == (LOAD, "cannot-load", True)
    assert scorer.score(Task(case, ("fake",))).outcomes[0].values


def test_what_reading_met_is_tried_again(tmp_path: Path, case: Case) -> None:
    def fail(pair: ClipPair) -> Statistics:
        raise ClipError("media", "decode-timeout", "ffmpeg gave nothing for 60 s")

    bench = Bench(tmp_path / "cache", fail)
    bench.score(case)
    bench.score(case)
    assert bench.calls == 2


def test_an_unexpected_exception_names_clip_metric_and_place(tmp_path: Path, case: Case) -> None:
    def fail(pair: ClipPair) -> Statistics:
        raise ZeroDivisionError("oh")

    result = Bench(tmp_path / "cache", fail).score(case)
    assert failure(result) == ("fake", "ZeroDivisionError", True)
    assert "oh (test_score_clip.py:" in result.outcomes[0].failures[0].detail


def test_a_metric_that_cannot_be_loaded_says_so_for_each_clip(tmp_path: Path, case: Case) -> None:
    def make(*_: Any) -> Metric:
        raise RuntimeError("size mismatch")

    assert failure(Bench(tmp_path / "cache", make=make).score(case)) == (LOAD, "cannot-load", True)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_none_are_failures(tmp_path: Path, case: Case, number: float) -> None:
    result = Bench(tmp_path / "cache", lambda pair: {"mean": np.float64(number)}).score(case)
    assert failure(result) == ("fake", "not-finite", False)


def test_a_file_that_cannot_be_read_fails_all_metrics(tmp_path: Path, case: Case) -> None:
    bench = Bench(tmp_path / "cache")
    gone = replace(case, generated=tmp_path / "gone.mp4", sound=tmp_path / "gone.mp4")
    assert failure(bench.score(gone)) == ("media", "missing-file", False)
    case.generated.write_bytes(b"not a video")
    assert failure(bench.score(case))[0] == "media"


def test_a_file_that_changes_meanwhile_is_not_kept(tmp_path: Path, case: Case) -> None:
    def grow(pair: ClipPair) -> Statistics:
        with case.generated.open("ab") as file:
            file.write(b"more")
        return {"mean": np.float64(1)}

    bench = Bench(tmp_path / "cache", grow)
    assert failure(bench.score(case)) == ("media", "changed", False)
    bench.score(case)
    assert bench.calls == 2


def test_a_refused_metric_is_not_tried(tmp_path: Path, case: Case) -> None:
    bench = Bench(tmp_path / "cache")
    refusal = ClipError("run", "worker-crashed", "twice")
    assert failure(bench.score(case, refused={"fake": refusal})) == ("run", "worker-crashed", False)
    assert bench.calls == 0


def test_where_references_are_no_ground_truth_only_metrics_that_ask_get_them(
    tmp_path: Path, case: Case
) -> None:
    seen = []

    def look(pair: ClipPair) -> Statistics:
        seen.append(pair.reference is not None)
        return {"mean": np.float64(1)}

    protocol = Protocol(reference="picture")
    result = Bench(tmp_path / "a", look, protocol=protocol).score(case)
    Bench(tmp_path / "b", look, protocol=protocol, needs_reference=True).score(case)
    assert seen == [False, True]
    assert result.mismatch is None


def test_a_cache_that_cannot_be_written_ends_the_run(tmp_path: Path, case: Case) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        Bench(tmp_path / "cache").score(case)


def test_entries_hold_plain_arrays_only(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="plain arrays; a holds objects"):
        Cache(tmp_path).save(Key("m", {"x": 1}), {"a": np.array([{}], object)})
    assert not list(tmp_path.rglob("*.npz")) and not list(tmp_path.rglob("*.tmp"))


def test_inputs_know_when_files_change(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"x")
    inputs = read_inputs(Case("m", "a", path, None, path))
    assert inputs.unchanged() and inputs.digests["reference"] is None
    path.unlink()
    assert not inputs.unchanged()
