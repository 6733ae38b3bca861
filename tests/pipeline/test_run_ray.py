"""Runs on Ray: workers that die or stand still, full disks, drivers killed; the same bytes always."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray

from syncdiff.pipeline.plan import RunIdentity, ShardPlan, plan_shards
from syncdiff.pipeline.prep_config import PrepConfig
from syncdiff.pipeline.ray_pool import DoUnit, Reporter, RunProgress
from syncdiff.pipeline.ray_start import connect
from syncdiff.pipeline.records import Clip, ClipError, RunError
from syncdiff.pipeline.run_ray import prepare_shards
from syncdiff.pipeline.store.manifest import ShardResult
from syncdiff.pipeline.store.paths import StorePaths
from syncdiff.pipeline.store.prep_run import PrepRun
from syncdiff.pipeline.store.schema import CLIP_SCHEMA
from syncdiff.pipeline.store.write import ShardWriter


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    connect(2, None)
    yield
    ray.shutdown()


def make_load(act: Callable[[Clip], None]) -> Callable[[str, Path, Path, PrepConfig], DoUnit]:
    """Workers that write empty shards and do `act` at every clip."""

    def load(layout: str, raw: Path, root: Path, config: PrepConfig) -> DoUnit:
        def write(plan: ShardPlan, reporter: Reporter, refused: Mapping[str, ClipError]) -> ShardResult:
            rejects = []
            for clip in plan.clips:
                reporter.begin(clip.id)
                time.sleep(0.3)  # lets the message out before the process may end
                if clip.id in refused:
                    rejects.append(refused[clip.id].reject(clip))
                else:
                    act(clip)
                reporter.end(None)
            with ShardWriter(StorePaths(root).clips(plan.name), CLIP_SCHEMA) as writer:
                entry = writer.finish(root)
            prepared = len(plan.clips) - len(rejects)
            return ShardResult(plan.name, plan.split, len(plan.clips), prepared, 0, entry, {}, tuple(rejects))

        return write

    return load


def run_with(tmp_path: Path, act: Callable[[Clip], None], stall_timeout_s: float = 60.0) -> dict[str, Any]:
    clips = tuple(Clip(f"folder/train/{n}", tmp_path / n, n, "train") for n in ("bad", "good", "ugly"))
    plans = plan_shards(clips, 2)
    run = PrepRun(tmp_path / "out", RunIdentity.of("folder", {}, {}, clips, 0), plans)
    seen: list[int] = []

    def show(progress: RunProgress) -> None:
        seen.append(progress.clips)

    with run.started():
        prepare_shards(
            run,
            plans,
            "folder",
            tmp_path,
            PrepConfig(),
            show,
            load=make_load(act),
            stall_timeout_s=stall_timeout_s,
        )
        manifest = run.finish([])
    assert seen[-1] == 3
    return manifest


def die_at_bad(clip: Clip) -> None:
    if clip.source == "bad":
        os.kill(os.getpid(), signal.SIGKILL)


def sleep_at_bad(clip: Clip) -> None:
    if clip.source == "bad":
        time.sleep(3600)


def fill_disk(clip: Clip) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_clip_that_kills_its_worker_is_rejected_and_the_others_are_kept(tmp_path: Path) -> None:
    manifest = run_with(tmp_path, die_at_bad)
    assert manifest["counts"]["reject_reasons"] == {"run/worker-crashed": 1}
    assert manifest["counts"]["splits"]["train"]["prepared"] == 2


def test_a_clip_at_which_the_worker_stands_still_is_rejected(tmp_path: Path) -> None:
    manifest = run_with(tmp_path, sleep_at_bad, stall_timeout_s=1.5)
    assert manifest["counts"]["reject_reasons"] == {"run/worker-stuck": 1}


def test_a_full_disk_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No space left on device; make room"):
        run_with(tmp_path, fill_disk)


def tree(root: Path) -> dict[str, str]:
    """Relative name -> hash of every file of a data set that a user can see."""
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and ".work" not in p.parts
    }


def command(raw: Path, out: Path, *more: str) -> list[str]:
    prep = Path(sys.executable).with_name("syncdiff-prep")
    return [str(prep), "lrs2", str(raw), "--out", str(out), *more]


def test_kill_9_at_any_moment_and_again_gives_the_same_data_set(sample_raw: Path, tmp_path: Path) -> None:
    undisturbed, disturbed = tmp_path / "a", tmp_path / "b"
    subprocess.run(command(sample_raw, undisturbed, "--workers", "1"), check=True, capture_output=True)
    for shards in (0, 1, 3):  # the driver dies once this many shards are recorded
        driver = subprocess.Popen(
            command(sample_raw, disturbed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 280
        while len(list((disturbed / ".work" / "done").glob("*.json"))) < shards or not disturbed.is_dir():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        driver.kill()
        driver.wait()
        assert not (disturbed / "dataset.json").exists()
    done = subprocess.run(command(sample_raw, disturbed), check=True, capture_output=True, text=True)
    assert "prepared already" in done.stdout
    assert tree(disturbed) == tree(undisturbed)
    again = subprocess.run(command(sample_raw, disturbed), check=True, capture_output=True, text=True)
    assert "inputs = " in again.stdout
    assert tree(disturbed) == tree(undisturbed)
