"""Reading a prepared data set: its files on disk, its manifest, and clips by index, by id, by frame and by time.

Nothing is read before it is asked for: a clip's columns are fetched from its own row group, one column at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from syncdiff.pipeline.audio import decode_flac
from syncdiff.pipeline.encode import decode_grey, decode_jpeg, decode_mask
from syncdiff.pipeline.records import FPS, I16, SAMPLE_RATE_HZ, U8, Bool
from syncdiff.pipeline.schema import CLIP_SCHEMA, check_version

# A row group holds one to a few clips; caching a few lets a reader ask for frames, masks and sound of the
# same clip without reading the file again, and bounds memory to a few row groups per process.
CACHED_COLUMNS = 24

_SHAPES = {
    "boxes_px": (4,),
    "landmarks_px": (68, 2),
    "crop_matrix": (2, 3),
    "head_pose_deg": (3,),
}


class StoreError(Exception):
    """A folder that is no finished data set, or lacks what was asked of it; the message says what to do."""


@dataclass(frozen=True)
class StorePaths:
    """Where the parts of a data set lie below its folder."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "dataset.json"

    @property
    def rejects(self) -> Path:
        return self.root / "rejects.parquet"

    @property
    def report(self) -> Path:
        return self.root / "report" / "index.html"

    @property
    def work(self) -> Path:
        """State of an unfinished run; gone when the data set is complete."""
        return self.root / ".work"

    def clips(self, shard: str) -> Path:
        return self.root / "clips" / f"{shard}.parquet"

    def features(self, extractor_id: str, shard: str) -> Path:
        return self.root / "features" / extractor_id / f"{shard}.parquet"

    def extractor(self, extractor_id: str) -> Path:
        return self.root / "features" / extractor_id / "extractor.json"


def read_manifest(root: Path) -> dict[str, Any]:
    """The content of dataset.json. Raises StoreError where the folder holds no finished data set."""
    paths = StorePaths(root)
    if paths.manifest.is_file():
        manifest: dict[str, Any] = json.loads(paths.manifest.read_text(encoding="utf-8"))
        return manifest
    if paths.work.is_dir():
        raise StoreError(f"{root}: preparation is not finished; run the same syncdiff-prep command again")
    hint = f"make one with syncdiff-prep LAYOUT RAW --out {root}"
    raise StoreError(f"{root}: no data set here (dataset.json is missing); {hint}")


class Dataset:
    """The rows of a data set, or of one split, in the order of its shards.

    `len(ds)`, `ds[i]` and iteration give `ClipView`s; `ds.by_id` finds one by clip_id; `ds.table` reads whole
    columns over all rows.
    """

    def __init__(self, root: Path, split: str | None = None) -> None:
        self.root = Path(root)
        self.paths = StorePaths(self.root)
        self.manifest = read_manifest(self.root)
        splits = sorted({s["split"] for s in self.manifest["shards"]})
        if split is not None and split not in splits:
            raise StoreError(f"{root}: no split {split!r}; it has {', '.join(splits) or 'none'}")
        self.split = split
        self.shards: tuple[str, ...] = tuple(
            s["name"] for s in self.manifest["shards"] if split in (None, s["split"]) and s["clips"]["rows"]
        )
        self._places = [
            place for shard in self.shards for place in _row_places(self.paths.clips(shard), shard)
        ]
        self._index: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> ClipView:
        return ClipView(self, *self._places[index])

    def __iter__(self) -> Iterator[ClipView]:
        return (self[i] for i in range(len(self)))

    @property
    def extractors(self) -> dict[str, dict[str, Any]]:
        """extractor id -> content of its extractor.json, for every feature set in the data set."""
        return {e: json.loads(self.paths.extractor(e).read_text()) for e in self.manifest["features"]}

    def table(self, columns: Sequence[str]) -> pa.Table:
        """These clip columns over all rows, in order."""
        parts = [pq.read_table(self.paths.clips(s), columns=list(columns)) for s in self.shards]
        return pa.concat_tables(parts) if parts else CLIP_SCHEMA.empty_table().select(list(columns))

    def by_id(self, clip_id: str) -> ClipView:
        """The row of this clip_id. Raises KeyError."""
        if self._index is None:
            ids = self.table(["clip_id"]).column(0).to_pylist()
            self._index = {name: i for i, name in enumerate(ids)}
        return self[self._index[clip_id]]


@dataclass(frozen=True)
class ClipView:
    """One row, read piece by piece. `row_group` and `offset` say where it lies in its shard."""

    dataset: Dataset
    shard: str
    row_group: int
    offset: int

    @property
    def clip_id(self) -> str:
        return str(self.value("clip_id"))

    @property
    def num_frames(self) -> int:
        return int(self.value("num_frames"))

    def value(self, name: str) -> Any:
        """A scalar column as a Python value (None where null)."""
        return self._cell(name).as_py()

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """A per-frame column as an array [T, ...]: landmarks_px [T,68,2], crop_matrix [T,2,3], pose_index [T], ..."""
        cell = self._cell(name)
        if not pa.types.is_list(cell.type):
            raise StoreError(f"{name} is not a per-frame column; use value({name!r})")
        array = _list_array(cell)
        return array.reshape(len(array), *_SHAPES[name]) if name in _SHAPES else array

    def frames(self, indices: Sequence[int] | slice | None = None) -> U8:
        """RGB crops [n,N,N,3] uint8 of these frames (all by default). Only they are decoded."""
        return np.stack([decode_jpeg(b) for b in self._blobs("frames", indices)])

    def masks(self, indices: Sequence[int] | slice | None = None) -> Bool:
        """Mouth masks [n,N,N] bool, True where the mouth is to be redrawn."""
        return np.stack([decode_mask(b) for b in self._blobs("mouth_masks", indices)])

    def mouth_rois(self, indices: Sequence[int] | slice | None = None) -> U8 | None:
        """AV-HuBERT's grey mouth regions [n,96,96] uint8, or None if they were not stored."""
        if not self._cell("mouth_rois").is_valid:
            return None
        return np.stack([decode_grey(b) for b in self._blobs("mouth_rois", indices)])

    def audio(self, start_s: float = 0.0, end_s: float | None = None) -> I16 | None:
        """Sound int16 [S], 16 kHz mono, from start to end in seconds; None where the source has no sound."""
        flac = self.value("audio_flac")
        if flac is None:
            return None
        stop = None if end_s is None else round(end_s * SAMPLE_RATE_HZ)
        return decode_flac(flac)[round(start_s * SAMPLE_RATE_HZ) : stop]

    def features(
        self, extractor_id: str, start: int = 0, stop: int | None = None
    ) -> np.ndarray[Any, Any] | None:
        """Feature steps [M,D] of the frames [start, stop), as stored (float32 or float16).

        An extractor at 25 Hz has one step a frame; one at another rate gives the steps from floor(start·rate/25)
        to floor(stop·rate/25). None where the row has nothing to extract from.
        """
        path = self.dataset.paths.features(extractor_id, self.shard)
        if not path.is_file():
            known = ", ".join(self.dataset.manifest["features"]) or "none"
            raise StoreError(f"{self.dataset.root}: no features {extractor_id!r}; it has {known}")
        cell = _read_feature(path, self.row_number)
        if not cell.is_valid:
            return None
        steps = _list_array(cell)
        rate = feature_rate_hz(path)
        last = len(steps) if stop is None else int(stop * rate / FPS)
        return steps[int(start * rate / FPS) : last]

    @property
    def row_number(self) -> int:
        """The row's position in its shard."""
        return sum(_group_rows(self.dataset.paths.clips(self.shard))[: self.row_group]) + self.offset

    def _cell(self, name: str) -> pa.Scalar:
        return _read_column(self.dataset.paths.clips(self.shard), self.row_group, name)[self.offset]

    def _blobs(self, name: str, indices: Sequence[int] | slice | None) -> list[bytes]:
        values = self._cell(name).values
        if indices is None:
            indices = slice(None)
        wanted = range(len(values))[indices] if isinstance(indices, slice) else indices
        return [values[int(i)].as_py() for i in wanted]


def open_dataset(path: str | Path, split: str | None = None) -> Dataset:
    """Open a prepared data set for reading, or one of its splits. Raises StoreError with what to do."""
    return Dataset(Path(path), split)


def feature_rate_hz(path: Path) -> float:
    """Steps a second of a feature shard, from its metadata."""
    return float(_open(path).schema_arrow.metadata[b"syncdiff.rate_hz"])


@lru_cache(maxsize=64)
def _open(path: Path) -> pq.ParquetFile:
    file = pq.ParquetFile(path, memory_map=True)
    check_version(file.schema_arrow, path)
    return file


@lru_cache(maxsize=4096)
def _group_rows(path: Path) -> tuple[int, ...]:
    metadata = _open(path).metadata
    return tuple(metadata.row_group(g).num_rows for g in range(metadata.num_row_groups))


@lru_cache(maxsize=CACHED_COLUMNS)
def _read_column(path: Path, row_group: int, name: str) -> pa.ChunkedArray:
    if name not in CLIP_SCHEMA.names:
        raise StoreError(f"no column {name!r}; there are {', '.join(CLIP_SCHEMA.names)}")
    return _open(path).read_row_group(row_group, columns=[name], use_threads=False).column(0)


@lru_cache(maxsize=8)
def _read_feature_group(path: Path, row_group: int) -> pa.ChunkedArray:
    return _open(path).read_row_group(row_group, columns=["values"], use_threads=False).column(0)


def _read_feature(path: Path, row: int) -> pa.Scalar:
    for group, rows in enumerate(_group_rows(path)):
        if row < rows:
            return _read_feature_group(path, group)[row]
        row -= rows
    raise StoreError(f"{path} has fewer rows than its clip shard; check with syncdiff-prep verify")


def _row_places(path: Path, shard: str) -> list[tuple[str, int, int]]:
    return [(shard, group, offset) for group, rows in enumerate(_group_rows(path)) for offset in range(rows)]


def _list_array(cell: pa.Scalar) -> np.ndarray[Any, Any]:
    """A list cell as [M] or [M,D], without passing through Python numbers."""
    values = cell.values
    inner = values.type
    if pa.types.is_fixed_size_list(inner):
        return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), inner.list_size)
    if pa.types.is_list(inner):
        flat = values.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(values), -1)
    return values.to_numpy(zero_copy_only=False)
