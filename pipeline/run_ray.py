"""Shards and their features on Ray: what a worker loads, and what it does with a shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from syncdiff.pipeline.plan import ShardPlan
from syncdiff.pipeline.prep_config import PrepConfig
from syncdiff.pipeline.prepare_shard import PrepContext, prepare_shard
from syncdiff.pipeline.ray_pool import STALL_TIMEOUT_S, DoUnit, Reporter, RunProgress, WorkerPool
from syncdiff.pipeline.records import ClipError, RunError
from syncdiff.pipeline.store.prep_run import PrepRun

if TYPE_CHECKING:
    from syncdiff.pipeline.features.extractor import Extractor


def load_preparation(layout: str, raw: Path, root: Path, config: PrepConfig) -> DoUnit:
    """In a worker: load the face models; what it does with a ShardPlan."""
    cv2.setNumThreads(1)  # the worker owns one core; OpenCV would take all of them
    return partial(prepare_shard, PrepContext.load(layout, raw, root, config))


def prepare_shards(
    run: PrepRun,
    plans: Sequence[ShardPlan],
    layout: str,
    raw: Path,
    config: PrepConfig,
    on_progress: Callable[[RunProgress], None] = lambda progress: None,
    *,
    load: Callable[[str, Path, Path, PrepConfig], DoUnit] = load_preparation,
    stall_timeout_s: float = STALL_TIMEOUT_S,
) -> None:
    """Make these shards and record each as it is finished. `connect` comes first. Raises RunError."""
    # Workers may run in another folder, so paths are absolute before they travel.
    load_worker = partial(load, layout, raw.resolve(), run.paths.root.resolve(), config)
    with WorkerPool(
        load_worker, gpus_per_worker=config.gpus_per_worker, stall_timeout_s=stall_timeout_s
    ) as pool:
        for name, result in pool.run({plan.name: plan for plan in plans}, on_progress):
            if isinstance(result, Exception):
                raise _shard_failed(name, result) from result
            run.record(result)


def load_extraction(root: Path, load: Callable[[], Extractor]) -> DoUnit:
    """In a worker: load the extractor; what it does with the name of a shard."""
    from syncdiff.pipeline.features.add_to_store import extract_shard  # PyTorch: not for every driver

    extractor = load()

    def extract(shard: str, reporter: Reporter, refused: Mapping[str, ClipError]) -> None:
        extract_shard(root, shard, extractor, reporter.on_progress)
        reporter.end(None)

    return extract


def extract_shards(
    root: Path,
    shards: Sequence[str],
    load: Callable[[], Extractor],
    gpus_per_worker: float = 0.0,
    on_progress: Callable[[RunProgress], None] = lambda progress: None,
) -> None:
    """Make these shards of features; `clips` of the progress counts shards. Raises RunError."""
    with WorkerPool(partial(load_extraction, root, load), gpus_per_worker=gpus_per_worker) as pool:
        for name, result in pool.run({shard: shard for shard in shards}, on_progress):
            if result is not None:
                raise _shard_failed(name, result) from result


def _shard_failed(shard: str, cause: Exception) -> RunError:
    if isinstance(cause, OSError):
        return RunError(
            f"shard {shard} could not be written: {cause}; make room or mend the disk, then run again"
        )
    return RunError(f"shard {shard} failed: {type(cause).__name__}: {cause}")
