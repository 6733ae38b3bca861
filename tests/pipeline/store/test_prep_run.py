"""A run keeps what is whole, refuses what was not asked for, and removes only what is its own."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.plan import PlanError as Refused
from syncdiff.pipeline.plan import RunIdentity, ShardPlan, plan_shards
from syncdiff.pipeline.records import Clip, Reject, RunError
from syncdiff.pipeline.store.manifest import (
    ShardResult,
    feature_records,
    finished_shards,
    record_features,
    write_manifest,
)
from syncdiff.pipeline.store.prep_run import PrepRun, check_apart
from syncdiff.pipeline.store.write import FileEntry


def clip(name: str, split: str = "train") -> Clip:
    return Clip(f"folder/{split}/{name}", Path(name), name, split)


CLIPS = tuple(clip(f"{i:02d}") for i in range(5))
IDENTITY = RunIdentity.of("folder", {"face_size_px": 128}, {"numpy": "2"}, CLIPS, 0)


def finish_shard(run: PrepRun, plan: ShardPlan, rejects: tuple[Reject, ...] = ()) -> ShardResult:
    path = run.paths.clips(plan.name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(plan.name.encode())
    entry = FileEntry(f"clips/{plan.name}.parquet", 1, path.stat().st_size, sha256_file(path))
    done = ShardResult(
        plan.name, plan.split, len(plan.clips), len(plan.clips) - len(rejects), 10, entry, {}, rejects
    )
    run.record(done)
    return done


def reject(one: Clip, transient: bool = False) -> Reject:
    return Reject(one.source, one.id, one.split, "track", "no-face", "nobody there", transient)


def test_results_survive_their_record(tmp_path: Path) -> None:
    run = PrepRun(tmp_path, IDENTITY, plan_shards(CLIPS, 3))
    with run.started():
        result = finish_shard(run, run.plans[0], (reject(CLIPS[0]),))
        assert finished_shards(run.paths) == [result]


def test_a_file_is_whole_by_its_time_or_by_its_hash(tmp_path: Path) -> None:
    run = finished_store(tmp_path / "out")
    first, second = (run.paths.clips(plan.name) for plan in run.plans)
    later = first.stat().st_mtime_ns + 10**9
    os.utime(first, ns=(later, later))  # copied
    second.write_bytes(second.read_bytes()[::-1])  # damaged
    os.utime(second, ns=(later, later))
    with run.started():
        assert run.todo() == {run.plans[1].name: [f"clips/{second.name} is missing or damaged"]}
        first.write_bytes(first.read_bytes()[::-1])
        os.utime(first, ns=(later, later))
        assert run.plans[0].name not in run.todo()  # the copy's time is on record now: not hashed again


def test_a_second_run_keeps_finished_shards_only(tmp_path: Path) -> None:
    plans = plan_shards(CLIPS, 1)
    run = PrepRun(tmp_path / "out", IDENTITY, plans)
    with run.started():
        finish_shard(run, plans[0])
        damaged = finish_shard(run, plans[1])
        finish_shard(run, plans[2], (reject(plans[2].clips[0], transient=True),))
        finish_shard(run, plans[3], (reject(plans[3].clips[0]),))
    (tmp_path / "out" / damaged.clips.file).write_bytes(b"half")
    (tmp_path / "out" / "clips" / f"{plans[4].name}.parquet.1.tmp").touch()
    with run.started():
        never, of_transient, of_permanent = plans[4].name, plans[2].name, plans[3].name
        todo = {damaged.name: [f"{damaged.clips.file} is missing or damaged"], of_transient: [], never: []}
        assert run.todo() == todo
        assert run.todo(retry_rejects=True) == {**todo, of_permanent: []}
        assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_flipped_digit_in_a_record_is_noticed(tmp_path: Path) -> None:
    run = finished_store(tmp_path / "out")
    record = run.paths.record(run.plans[0].name)
    record.write_text(record.read_text().replace('"frames": 10', '"frames": 11'))
    identity = run.paths.identity
    identity.write_text(identity.read_text().replace("128", "129"))  # the manifest knows better
    with run.started():
        assert run.todo() == {run.plans[0].name: []}


DAMAGE = ("", "{", "[]", "7", "null", "{}", '{"name": 7}', "\0" * 40, "[" * 50_000)


@pytest.mark.parametrize("content", DAMAGE)
def test_a_damaged_record_costs_its_shard_and_nothing_else(tmp_path: Path, content: str) -> None:
    run = finished_store(tmp_path / "out")
    run.paths.record(run.plans[0].name).write_text(content)
    run.paths.identity.write_text(content)  # the manifest says the same
    feature_record = run.paths.feature_record("net", run.plans[1].name)
    feature_record.parent.mkdir(parents=True)
    feature_record.write_text(content)
    with run.started():
        assert run.todo() == {run.plans[0].name: []}
        finish_shard(run, run.plans[0])
        assert len(run.finish([])["shards"]) == len(run.plans)


def test_a_record_of_another_shard_or_of_files_elsewhere_does_not_count(tmp_path: Path) -> None:
    run = finished_store(tmp_path / "out")
    first, second = (run.paths.record(plan.name) for plan in run.plans)
    elsewhere = first.read_text().replace("clips/", "../clips/")
    first.write_text(second.read_text())
    second.write_text(elsewhere)
    with run.started():
        assert run.todo() == {plan.name: [] for plan in run.plans}


def test_without_a_readable_identity_everything_is_made_again(tmp_path: Path) -> None:
    run = finished_store(tmp_path / "out")
    run.paths.identity.write_text("{")
    run.paths.manifest.write_text("{")
    with PrepRun(run.paths.root, replace(IDENTITY, config={"face_size_px": 256}), run.plans).started():
        assert run.todo() == {plan.name: [] for plan in run.plans}


def test_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    with PrepRun(tmp_path / "out", IDENTITY, ()).started():
        pass
    other = replace(IDENTITY, config={"face_size_px": 256}, versions={"numpy": "3"})
    with (
        pytest.raises(Refused, match=r"config\.face_size_px: 128 -> 256\n  versions\.numpy: 2 -> 3"),
        PrepRun(tmp_path / "out", other, ()).started(),
    ):
        pass
    with PrepRun(tmp_path / "out", other, ()).started(overwrite=True):
        pass


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(Refused, match="is no data set of ours"), PrepRun(tmp_path, IDENTITY, ()).started():
        pass
    with (
        pytest.raises(Refused, match="is no data set of ours"),
        PrepRun(tmp_path, IDENTITY, ()).started(overwrite=True),
    ):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "dataset.json").write_text('{"title": "years of work"}')
    (tmp_path / ".work").mkdir()
    with pytest.raises(Refused, match="is no data set of ours"), PrepRun(tmp_path, IDENTITY, ()).started():
        pass


def finished_store(root: Path) -> PrepRun:
    """A finished data set whose folder also holds files of the user's."""
    run = PrepRun(root, IDENTITY, plan_shards(CLIPS, 3))
    with run.started():
        for plan in run.plans:
            finish_shard(run, plan)
        run.finish([])
    return run


def test_starting_again_removes_what_is_on_record_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "out"
    run = finished_store(root)
    theirs = [root / name for name in ("mine.mp4", "clips/mine.parquet", "report/notes.txt", ".work/diary")]
    theirs += [root / "clips" / "draft.tmp", root / "clips" / "train-00000.parquet.tmp"]
    for path in theirs:
        path.parent.mkdir(exist_ok=True)
        path.write_text("years of work")
    (root / "d.tmp").mkdir()
    (root / "clips" / "d.1.tmp").mkdir()
    other = PrepRun(root, replace(IDENTITY, config={"face_size_px": 256}), ())
    with other.started(overwrite=True):
        assert run.todo() == {plan.name: [] for plan in run.plans}
        assert not run.paths.manifest.exists() and not run.paths.rejects.exists()
        assert sorted(p.name for p in (root / "clips").iterdir()) == sorted(
            ["d.1.tmp", "draft.tmp", "mine.parquet", "train-00000.parquet.tmp"]
        )
    assert all(path.read_text() == "years of work" for path in theirs)


def test_starting_again_follows_the_manifest_where_the_records_are_gone(tmp_path: Path) -> None:
    run = finished_store(tmp_path / "out")
    shutil.rmtree(run.paths.work)
    with run.started(overwrite=True):
        assert not (tmp_path / "out" / "clips").exists()


@pytest.mark.parametrize(
    ("raw", "out"), [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("link", "a"), ("a", "link/b")]
)
def test_the_raw_data_are_never_written_to(tmp_path: Path, raw: str, out: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(Refused, match="raw data"):
        check_apart(tmp_path / out, tmp_path / raw)
    check_apart(tmp_path / "ab", tmp_path / "a")
    check_apart(tmp_path / "not" / "there", tmp_path / "a" / "b")


def test_a_file_is_no_place_for_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(Refused, match="is a file"), PrepRun(tmp_path / "out", IDENTITY, ()).started():
        pass


def test_two_runs_cannot_write_the_same_data_set(tmp_path: Path) -> None:
    run = PrepRun(tmp_path / "out", IDENTITY, ())
    with run.started(), pytest.raises(Refused, match="another run"), run.started():
        pass


def test_the_manifest_counts_every_input_once(tmp_path: Path) -> None:
    plans = plan_shards(CLIPS, 3)
    run = PrepRun(tmp_path / "out", IDENTITY, plans)
    missing = Reject("gone.mp4", "folder/val/gone", "val", "list", "missing-file", "not there")
    with run.started():
        finish_shard(run, plans[0], (reject(plans[0].clips[1]),))
        finish_shard(run, plans[1])
        manifest = run.finish([missing])
    splits = manifest["counts"]["splits"]
    assert splits["train"]["inputs"] == 5 == splits["train"]["prepared"] + splits["train"]["rejects"]
    assert splits["val"] == {"inputs": 1, "prepared": 0, "rows": 0, "frames": 0, "rejects": 1}
    assert manifest["counts"]["reject_reasons"] == {"list/missing-file": 1, "track/no-face": 1}
    assert pq.read_table(tmp_path / "out" / "rejects.parquet").num_rows == 2
    assert json.loads(run.paths.manifest.read_text()) == manifest


def test_added_features_count_while_their_clips_stay_the_same(tmp_path: Path) -> None:
    plans = plan_shards(CLIPS, 3)
    run = PrepRun(tmp_path / "out", IDENTITY, plans)
    with run.started():
        results = [finish_shard(run, plan) for plan in plans]
        run.finish([])
    path = run.paths.features("net", plans[0].name)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"values")
    entry = FileEntry(path.relative_to(run.paths.root).as_posix(), 1, 6, sha256_file(path))
    record_features(run.paths, "net", plans[0].name, results[0].clips.sha256, entry)
    assert feature_records(run.paths, results[0]) == {"net": entry}
    assert write_manifest(run.paths)["features"] == []  # the other shard has none yet
    changed = replace(results[0], clips=replace(results[0].clips, sha256="other"))
    assert feature_records(run.paths, changed) == {}


def test_shards_that_were_removed_during_the_run_are_missed_and_made_again(tmp_path: Path) -> None:
    run = PrepRun(tmp_path / "out", IDENTITY, plan_shards(CLIPS, 1))
    with run.started():
        for plan in run.plans[:3]:
            finish_shard(run, plan)
        for file in (path for path in run.paths.root.rglob("*") if path.is_file()):
            file.unlink()  # folders stay, as with `find -type f -delete`
        for plan in run.plans[3:]:
            finish_shard(run, plan)
        with pytest.raises(RunError, match=r"of 5 shards 3 are gone from .* \(train-00000, \.\.\.\)"):
            run.finish([])
        assert not run.paths.manifest.exists()
    again = PrepRun(tmp_path / "out", IDENTITY, run.plans)
    with again.started():
        assert set(again.todo()) == {plan.name for plan in run.plans}  # nothing says how those two were made
        for plan in run.plans:
            finish_shard(again, plan)
        assert len(again.finish([])["shards"]) == 5
