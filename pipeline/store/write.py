"""Writing Parquet shards: a shard appears whole or not at all.

A shard holds the rows of a fixed list of inputs, in their order. The same rows give the same bytes: no time,
host or random value enters a file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.records import Features

# A row group is the unit a reader fetches. 8 MiB of images are about 20 s of 256-pixel crops: enough for
# sequential reading, small enough that looking at one clip does not read a whole shard.
ROW_GROUP_BYTES = 8 << 20


def feature_record(clip_id: str, num_frames: int, features: Features | None) -> dict[str, Any]:
    """The feature row that belongs to a clip row; null values where the clip had nothing to extract from."""
    return {
        "clip_id": clip_id,
        "num_frames": num_frames,
        "padded_steps": 0 if features is None else features.padded_steps,
        "values": None if features is None else features.values,
    }


@dataclass(frozen=True)
class FileEntry:
    """A finished file as the manifest records it; `file` is relative to the store, with forward slashes."""

    file: str
    rows: int
    bytes: int
    sha256: str

    def unchanged(self, root: Path, mtime_ns: int | None) -> bool:
        """Whether the file is there as recorded: by size and time, by its hash where the time is another."""
        path = root / self.file
        if not path.is_file() or path.stat().st_size != self.bytes:
            return False
        return path.stat().st_mtime_ns == mtime_ns or sha256_file(path) == self.sha256


def write_atomic(path: Path, data: bytes) -> None:
    """Write a small file so that it is either wholly there or not at all, also after a crash."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class ShardWriter:
    """Write one shard: rows go to `<name>.<pid>.tmp`; `finish` flushes and renames.

    Leaving the `with` block without `finish` removes the temporary file.
    """

    def __init__(self, path: Path, schema: pa.Schema, row_group_bytes: int = ROW_GROUP_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        self._schema = schema
        self._row_group_bytes = row_group_bytes
        self._pending: list[dict[str, Any]] = []
        self._pending_bytes = 0
        self._rows = 0
        small = [f.name for f in schema if not pa.types.is_list(f.type) and not pa.types.is_binary(f.type)]
        self._writer = pq.ParquetWriter(
            self._temporary,
            schema,
            compression=_compression(schema),
            use_dictionary=small,
            write_statistics=small,  # minimum and maximum of images would be whole images in the footer
            write_page_checksum=True,  # a reader notices a flipped byte; 4 GB/s to verify
        )

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._temporary.exists():
            self._writer.close()
            self._temporary.unlink()

    def add(self, record: dict[str, Any]) -> None:
        """Append a row given as column -> value (per-frame columns as arrays [T, ...] or lists)."""
        self._pending.append(record)
        self._pending_bytes += record_bytes(record)
        self._rows += 1
        if self._pending_bytes >= self._row_group_bytes:
            self._flush()

    def finish(self, root: Path) -> FileEntry:
        """Close, flush to disk and rename into place; return the manifest's entry, relative to `root`."""
        self._flush()
        self._writer.close()
        with self._temporary.open("rb") as file:
            os.fsync(file.fileno())
        entry = FileEntry(
            self._path.relative_to(root).as_posix(),
            self._rows,
            self._temporary.stat().st_size,
            sha256_file(self._temporary),
        )
        self._temporary.replace(self._path)
        return entry

    def _flush(self) -> None:
        if self._pending:
            arrays = [_to_arrow([r[f.name] for r in self._pending], f.type) for f in self._schema]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            self._pending.clear()
            self._pending_bytes = 0


def _compression(schema: pa.Schema) -> dict[str, str]:
    """JPEG, PNG and FLAC do not shrink; everything else gets zstd. Keys are Parquet leaf paths."""
    images = {"frames", "mouth_masks", "mouth_rois", "audio_flac"}
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)  # only Parquet itself knows what its leaves are called
    parquet = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    leaves = [parquet.column(i).path for i in range(len(parquet))]
    return {leaf: "NONE" if leaf.split(".")[0] in images else "ZSTD" for leaf in leaves}


def record_bytes(record: dict[str, Any]) -> int:
    """Rough bytes of a record, counting what is large: arrays, images and sound."""
    total = 0
    for value in record.values():
        if isinstance(value, np.ndarray):
            total += value.nbytes
        elif isinstance(value, bytes):
            total += len(value)
        elif isinstance(value, list) and value and isinstance(value[0], bytes):
            total += sum(map(len, value))
    return total


def _to_arrow(values: list[Any], type_: pa.DataType) -> pa.Array:
    """Convert one column; arrays [T, ...] do not pass through Python numbers."""
    if not (pa.types.is_list(type_) and any(isinstance(v, np.ndarray) for v in values)):
        return pa.array(values, type_)
    lengths = [0 if v is None else len(v) for v in values]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    parts = [np.asarray(v) for v in values if v is not None]
    flat = np.concatenate([p.reshape(len(p), -1) if p.ndim > 1 else p for p in parts])
    inner = type_.value_type
    if pa.types.is_fixed_size_list(inner):
        numbers = np.ascontiguousarray(flat, inner.value_type.to_pandas_dtype()).ravel()
        items = pa.FixedSizeListArray.from_arrays(pa.array(numbers, inner.value_type), type=inner)
    elif pa.types.is_list(inner):
        width = flat.shape[1]
        steps = np.arange(len(flat) + 1, dtype=np.int32) * width
        items = pa.ListArray.from_arrays(steps, pa.array(flat.ravel(), inner.value_type), type=inner)
    else:
        items = pa.array(flat, inner)
    missing = pa.array([v is None for v in values])
    return pa.ListArray.from_arrays(offsets, items, type=type_, mask=missing)
