"""What a prepared data set holds, in numbers: counts, rejects, features and distributions.

Only small columns are read, a batch of rows at a time, and what is kept are bins: a million rows need no more
memory than a hundred.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from syncdiff.pipeline.records import FPS
from syncdiff.pipeline.report.distributions import (
    FRAME_QUANTITIES,
    HEAD_POSE,
    ROW_QUANTITIES,
    Distribution,
    Joint,
    RunningHistogram,
    add_joint,
)
from syncdiff.pipeline.store.parquet import open_parquet
from syncdiff.pipeline.store.paths import read_json
from syncdiff.pipeline.store.read import Dataset

BATCH_ROWS = 1024  # in memory at a time
EXAMPLES = 3  # rejects shown of each reason
_SPLIT_KEYS = ("inputs", "prepared", "rejects", "rows", "frames")  # of the manifest's counts

_LAG_EDGES = np.arange(-15.5, 16)
_CORRELATION_EDGES = np.round(np.arange(-0.2, 1.01, 0.05), 2)
_TURN_EDGES = np.arange(-60.0, 61, 5)
_NOD_EDGES = np.arange(-40.0, 41, 5)
_COLUMNS = (
    "split", "speaker_id", "num_frames", "source_damage", "audio_padded_samples", "transcript", "words",
    "interocular_px", "sharpness", "coverage", "num_faces", "av_lag_frames", "av_correlation",
    "head_pose_deg", "mouth_opening",
)  # fmt: skip


@dataclass(frozen=True)
class SplitCount:
    """Counts of one split; inputs = prepared + rejects."""

    name: str
    inputs: int
    prepared: int
    rejects: int
    rows: int
    frames: int
    speakers: int

    @property
    def hours(self) -> float:
        return self.frames / FPS / 3600


@dataclass(frozen=True)
class RejectCount:
    """Inputs rejected for one reason. `examples`: the first few as (source, detail)."""

    stage: str
    reason: str
    number: int
    transient: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FeatureSet:
    """One extractor's features, from its extractor.json. `untrained`: of stand-in weights, worthless."""

    id: str
    about: str
    width: int | None
    rate_hz: float | None
    checkpoint: str | None
    untrained: bool
    bytes: int


@dataclass(frozen=True)
class Summary:
    """A data set (or one split of it) in numbers. `split` is None for all of it."""

    layout: str
    split: str | None
    splits: tuple[SplitCount, ...]
    speakers: int
    rows_with_sound: int
    rows_with_transcript: int
    rows_with_words: int
    damaged_rows: int
    crowded_rows: int  # another face was tracked in the same shot
    clip_bytes: int
    rejects: tuple[RejectCount, ...]
    features: tuple[FeatureSet, ...]
    distributions: tuple[Distribution, ...]
    joints: tuple[Joint, ...]
    config: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]

    @property
    def rows(self) -> int:
        return sum(split.rows for split in self.splits)

    @property
    def hours(self) -> float:
        return sum(split.hours for split in self.splits)

    def distribution(self, key: str) -> Distribution:
        """The distribution of the quantity `key`. Raises KeyError."""
        return {d.quantity.key: d for d in self.distributions}[key]


def row_batches(dataset: Dataset, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """These columns of all rows, a batch at a time, with the index of the batch's first row."""
    first = 0
    for shard in dataset.shards:
        with open_parquet(dataset.paths.clips(shard)) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False):
                yield first, batch
                first += len(batch)


def frame_values(batch: pa.RecordBatch, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """A per-frame column of a batch: all rows' frames one after the other [F, ...], frames per row [R]."""
    column = batch.column(name)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    values = column.flatten()
    if pa.types.is_fixed_size_list(values.type):
        width = values.type.list_size
        return values.flatten().to_numpy(zero_copy_only=False).reshape(-1, width), lengths
    return values.to_numpy(zero_copy_only=False), lengths


def row_values(batch: pa.RecordBatch, name: str) -> NDArray[np.float64]:
    """A column with one number a row [R], NaN where it is null."""
    filled = pc.fill_null(batch.column(name).cast(pa.float64()), float("nan"))
    return np.asarray(filled.to_numpy(zero_copy_only=False), np.float64)


def summarise(dataset: Dataset) -> Summary:
    """Go through the small columns of a data set once and count."""
    counts = _Counts()
    for _, batch in row_batches(dataset, _COLUMNS):
        counts.add(batch)
    manifest = dataset.manifest
    shards = [s for s in manifest["shards"] if dataset.split in (None, s["split"])]
    splits = tuple(
        SplitCount(name, speakers=len(counts.speakers.get(name, ())), **{key: c[key] for key in _SPLIT_KEYS})
        for name, c in sorted(manifest["counts"]["splits"].items())
        if dataset.split in (None, name)
    )
    return Summary(
        layout=str(manifest.get("layout", "")),
        split=dataset.split,
        splits=splits,
        speakers=len(set().union(*counts.speakers.values())),
        rows_with_sound=counts.filled["audio_padded_samples"],
        rows_with_transcript=counts.filled["transcript"],
        rows_with_words=counts.filled["words"],
        damaged_rows=counts.filled["source_damage"],
        crowded_rows=counts.crowded,
        clip_bytes=sum(s["clips"]["bytes"] for s in shards),
        rejects=_rejects(dataset),
        features=tuple(_feature_set(dataset, name, shards) for name in manifest.get("features", ())),
        distributions=tuple(histogram.finish() for histogram in counts.histograms.values()),
        joints=counts.joints(),
        config=tuple(_flat(manifest.get("config", {}))),
        versions=tuple(_flat(manifest.get("versions", {}))),
    )


class _Counts:
    """What is counted while the batches go by."""

    def __init__(self) -> None:
        self.histograms = {q.key: RunningHistogram(q) for q in (*ROW_QUANTITIES, *FRAME_QUANTITIES)}
        self.speakers: dict[str, set[str]] = {}  # of each split
        self.filled: Counter[str] = Counter()  # rows that have a value, by column
        self.crowded = 0
        self._lag = np.zeros((len(_CORRELATION_EDGES) - 1, len(_LAG_EDGES) - 1), np.int64)
        self._turn = np.zeros((len(_NOD_EDGES) - 1, len(_TURN_EDGES) - 1), np.int64)

    def add(self, batch: pa.RecordBatch) -> None:
        values = {q.key: row_values(batch, q.key) for q in ROW_QUANTITIES if q.key in batch.schema.names}
        values["duration_s"] = row_values(batch, "num_frames") / FPS
        values["coverage"] = 100 * values["coverage"]
        lag, correlation = values["av_lag_frames"], values["av_correlation"]
        add_joint(self._lag, lag, correlation, _LAG_EDGES, _CORRELATION_EDGES)

        pose, _ = frame_values(batch, "head_pose_deg")
        values |= {name: pose[:, axis] for axis, name in enumerate(HEAD_POSE)}
        values["mouth_opening"] = frame_values(batch, "mouth_opening")[0]
        add_joint(self._turn, values["yaw"], values["pitch"], _TURN_EDGES, _NOD_EDGES)
        for key, numbers in values.items():
            self.histograms[key].add(numbers)

        self.crowded += int((row_values(batch, "num_faces") > 1).sum())
        for name in ("audio_padded_samples", "transcript", "words", "source_damage"):
            self.filled[name] += len(batch) - batch.column(name).null_count
        pairs = zip(batch.column("split").to_pylist(), batch.column("speaker_id").to_pylist(), strict=True)
        for split, speaker in set(pairs):
            self.speakers.setdefault(split, set()).update([speaker] if speaker is not None else [])

    def joints(self) -> tuple[Joint, ...]:
        return (
            Joint("Lag and correlation together",
                  "Rows whose sound follows the mouth gather in one column; it should stand at 0.",
                  "lag in frames", "correlation", tuple(_LAG_EDGES.tolist()),
                  tuple(_CORRELATION_EDGES.tolist()),
                  tuple(map(tuple, self._lag.tolist()))),
            Joint("Where the heads look",
                  "Every frame by yaw and pitch; angles beyond the edges count there.",
                  "yaw in degrees, + to the picture's right", "pitch, + up",
                  tuple(_TURN_EDGES.tolist()), tuple(_NOD_EDGES.tolist()),
                  tuple(map(tuple, self._turn.tolist()))),
        )  # fmt: skip


def _rejects(dataset: Dataset) -> tuple[RejectCount, ...]:
    """Rejects by stage and reason, the most frequent first."""
    number: Counter[tuple[str, str]] = Counter()
    transient: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[tuple[str, str]]] = {}
    with open_parquet(dataset.paths.rejects) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            for reject in batch.to_pylist():
                if dataset.split not in (None, reject["split"]):
                    continue
                key = (reject["stage"], reject["reason"])
                number[key] += 1
                transient[key] += reject["transient"]
                if number[key] <= EXAMPLES:
                    examples.setdefault(key, []).append((reject["source"], reject["detail"]))
    ordered = sorted(number, key=lambda key: (-number[key], key))
    return tuple(RejectCount(*key, number[key], transient[key], tuple(examples[key])) for key in ordered)


def _feature_set(dataset: Dataset, name: str, shards: Sequence[dict[str, Any]]) -> FeatureSet:
    path = dataset.paths.extractor(name)
    described = read_json(path) if path.is_file() else {}
    checkpoint = described.get("checkpoint")
    return FeatureSet(
        id=name,
        about=str(described.get("source") or described.get("kind") or "extractor.json is missing"),
        width=described.get("width"),
        rate_hz=described.get("rate_hz"),
        checkpoint=None if checkpoint is None else str(checkpoint),
        untrained=bool(described.get("untrained", False)),
        bytes=sum(s["features"][name]["bytes"] for s in shards if name in s["features"]),
    )


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as sorted pairs (`mask.kind`, `landmarks`)."""
    if isinstance(value, dict):
        inner = ((f"{prefix}.{key}" if prefix else str(key), value[key]) for key in sorted(value))
        return [pair for key, item in inner for pair in _flat(item, key)]
    return [(prefix, ", ".join(map(str, value)) if isinstance(value, list) else str(value))]
