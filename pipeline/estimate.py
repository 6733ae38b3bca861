"""What a run would cost, measured on a few of its clips (`--dry-run`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from syncdiff.pipeline.datasets.transcripts import with_text
from syncdiff.pipeline.faces.track import make_backend
from syncdiff.pipeline.prep_config import PrepConfig
from syncdiff.pipeline.prepare_clip import prepare_clip
from syncdiff.pipeline.records import FPS, Clip, ClipError, Row
from syncdiff.pipeline.store.write import record_bytes


@dataclass(frozen=True)
class Estimate:
    """Expected totals of a run, from `measured` clips of which `failed` gave no row.

    hours: of prepared video; core_s: seconds of one core; bytes: of all shards.
    """

    measured: int
    failed: int
    hours: float
    core_s: float
    bytes: float


def estimate(layout: str, raw: Path, clips: Sequence[Clip], config: PrepConfig, most: int = 5) -> Estimate:
    """Prepare up to `most` clips, evenly spread over the list, and scale up. Nothing is written."""
    chosen = clips[:: max(1, -(-len(clips) // most))]
    backend = make_backend(config.tracker)
    rows: list[Row] = []
    failed = 0
    started = time.perf_counter()
    for clip in chosen:
        try:
            rows += prepare_clip(with_text(layout, raw, clip), config, backend)
        except ClipError:
            failed += 1
    elapsed_s = time.perf_counter() - started
    scale = len(clips) / len(chosen)
    frames = sum(row.columns["num_frames"] for row in rows)
    size = sum(record_bytes(r.columns) + sum(f.values.nbytes for f in r.features) for r in rows)
    return Estimate(len(chosen), failed, scale * frames / FPS / 3600, scale * elapsed_s, scale * size)
