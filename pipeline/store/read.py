"""Reading a prepared data set: its files, its manifest, and clips by index, by id, by frame and by time.

Nothing is read before it is asked for: a column of a clip is fetched from the clip's own row group.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from syncdiff.pipeline.media.flac import decode_flac
from syncdiff.pipeline.media.images import decode_grey, decode_jpeg, decode_mask
from syncdiff.pipeline.records import FPS, I16, SAMPLE_RATE_HZ, U8, Bool
from syncdiff.pipeline.store.parquet import naming, open_parquet
from syncdiff.pipeline.store.paths import BAD_TEXT, StoreError, StorePaths, read_json, read_manifest
from syncdiff.pipeline.store.schema import CLIP_SCHEMA, check_version

# A row group holds one to a few clips; keeping a few columns of it lets a reader ask for frames, masks and
# sound of the same clip without reading the file again, and bounds memory to a few row groups a shard.
CACHED_COLUMNS = 16
CACHED_SHARDS = 8

_SHAPES = {
    "boxes_px": (4,),
    "landmarks_px": (68, 2),
    "crop_matrix": (2, 3),
    "head_pose_deg": (3,),
}


class ShardReader:
    """One Parquet file: row groups, and single columns of them, the latest few kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with naming(path):
            self._file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
            check_version(self._file.schema_arrow, path)
        metadata = self._file.metadata
        self.metadata: dict[bytes, bytes] = self._file.schema_arrow.metadata
        self.group_rows: tuple[int, ...] = tuple(
            metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)
        )
        self._columns: OrderedDict[tuple[int, str], pa.ChunkedArray] = OrderedDict()

    def cell(self, row_group: int, offset: int, name: str) -> pa.Scalar:
        """The value of a column in the row `offset` of a row group."""
        key = (row_group, name)
        if key not in self._columns:
            with naming(self._path):
                table = self._file.read_row_group(row_group, columns=[name], use_threads=False)
            self._columns[key] = table.column(0)
            if len(self._columns) > CACHED_COLUMNS:
                self._columns.popitem(last=False)
        self._columns.move_to_end(key)
        return self._columns[key][offset]

    def locate(self, row: int) -> tuple[int, int]:
        """Row group and offset of the row-th row. Raises IndexError."""
        for group, rows in enumerate(self.group_rows):
            if row < rows:
                return group, row
            row -= rows
        raise IndexError(row)


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
        self._readers: OrderedDict[Path, ShardReader] = OrderedDict()
        self._places = [
            (shard, group, offset)
            for shard in self.shards
            for group, rows in enumerate(self.reader(self.paths.clips(shard)).group_rows)
            for offset in range(rows)
        ]
        self._index: dict[str, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": OrderedDict()}  # open files stay in their process

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> ClipView:
        return ClipView(self, *self._places[index])

    def __iter__(self) -> Iterator[ClipView]:
        return (self[i] for i in range(len(self)))

    @property
    def extractors(self) -> dict[str, dict[str, Any]]:
        """extractor id -> content of its extractor.json, for every feature set in the data set."""
        return {e: read_json(self.paths.extractor(e)) for e in self.manifest["features"]}

    def reader(self, path: Path) -> ShardReader:
        """The reader of a shard file; the latest few stay open."""
        if path not in self._readers:
            self._readers[path] = ShardReader(path)
            if len(self._readers) > CACHED_SHARDS:
                self._readers.popitem(last=False)
        self._readers.move_to_end(path)
        return self._readers[path]

    def table(self, columns: Sequence[str]) -> pa.Table:
        """These clip columns over all rows, in order."""
        parts = []
        for shard in self.shards:
            with open_parquet(self.paths.clips(shard)) as file:
                parts.append(file.read(columns=list(columns)))
        table = pa.concat_tables(parts) if parts else CLIP_SCHEMA.empty_table().select(list(columns))
        for name in BAD_TEXT.keys() & set(columns):
            bad = table[name].filter(pc.match_substring_regex(table[name], BAD_TEXT[name]))
            if len(bad):
                raise StoreError(f"{self.root}: {name} {bad[0].as_py()!r} leads out of the data set")
        return table

    def clips_of(self, shard: str) -> list[ClipView]:
        """The rows of one shard, in order."""
        return [ClipView(self, *place) for place in self._places if place[0] == shard]

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
        """A scalar column as a Python value (None where null). StoreError for a path that leads out."""
        value = self._cell(name).as_py()
        if name in BAD_TEXT and re.search(BAD_TEXT[name], value):
            raise StoreError(f"{self.dataset.root}: {name} {value!r} leads out of the data set")
        return value

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """A per-frame column as an array [T, ...], such as landmarks_px [T,68,2] or pose_index [T]."""
        cell = self._cell(name)
        if not pa.types.is_list(cell.type):
            raise StoreError(f"{name} is not a per-frame column; use value({name!r})")
        array = np.array(_list_array(cell))
        return array.reshape(len(array), *_SHAPES[name]) if name in _SHAPES else array

    def frames(self, indices: Sequence[int] | slice | None = None) -> U8:
        """RGB crops [n,N,N,3] uint8 of these frames (all by default). Only they are decoded."""
        return np.stack([decode_jpeg(b) for b in self.blobs("frames", indices)])

    def masks(self, indices: Sequence[int] | slice | None = None) -> Bool:
        """Mouth masks [n,N,N] bool, True where the mouth is to be redrawn."""
        return np.stack([decode_mask(b) for b in self.blobs("mouth_masks", indices)])

    def mouth_rois(self, indices: Sequence[int] | slice | None = None) -> U8 | None:
        """AV-HuBERT's grey mouth regions [n,96,96] uint8, or None if they were not stored."""
        if not self._cell("mouth_rois").is_valid:
            return None
        return np.stack([decode_grey(b) for b in self.blobs("mouth_rois", indices)])

    def audio(self, start_s: float = 0.0, end_s: float | None = None) -> I16 | None:
        """Sound int16 [S], 16 kHz mono, from start to end in seconds; None where the source has no sound."""
        flac = self.value("audio_flac")
        if flac is None:
            return None
        stop = None if end_s is None else round(end_s * SAMPLE_RATE_HZ)
        samples: I16 = decode_flac(flac)[round(start_s * SAMPLE_RATE_HZ) : stop]
        return samples

    def features(
        self, extractor_id: str, start: int = 0, stop: int | None = None
    ) -> np.ndarray[Any, Any] | None:
        """Feature steps [M,D] of the frames [start, stop), as stored (float32 or float16).

        An extractor at 25 Hz has one step a frame; one at another rate gives the steps from
        floor(start·rate/25) to floor(stop·rate/25). None where the row has nothing to extract from. Raises
        IndexError unless 0 <= start <= stop <= num_frames.
        """
        if not 0 <= start <= (self.num_frames if stop is None else stop) <= self.num_frames:
            raise self._no_such_frames(f"[{start}, {'end' if stop is None else stop})")
        path = self.dataset.paths.features(extractor_id, self.shard)
        if extractor_id not in self.dataset.manifest["features"] and not path.is_file():
            present = ", ".join(self.dataset.manifest["features"]) or "none"
            raise StoreError(f"{self.dataset.root}: no features {extractor_id!r}; it has {present}")
        reader = self.dataset.reader(path)
        cell = reader.cell(*reader.locate(self.row_number), "values")
        if not cell.is_valid:
            return None
        steps = _list_array(cell)
        rate_hz = float(reader.metadata[b"syncdiff.rate_hz"])
        last = len(steps) if stop is None else int(stop * rate_hz / FPS)
        return np.array(steps[int(start * rate_hz / FPS) : last])  # the caller's own copy, writable

    @property
    def row_number(self) -> int:
        """The row's position in its shard."""
        return sum(self._reader.group_rows[: self.row_group]) + self.offset

    @property
    def _reader(self) -> ShardReader:
        return self.dataset.reader(self.dataset.paths.clips(self.shard))

    def _cell(self, name: str) -> pa.Scalar:
        if name not in CLIP_SCHEMA.names:
            raise StoreError(f"no column {name!r}; there are {', '.join(CLIP_SCHEMA.names)}")
        return self._reader.cell(self.row_group, self.offset, name)

    def blobs(self, name: str, indices: Sequence[int] | slice | None = None) -> list[bytes]:
        """Images of a per-frame column as they are stored (JPEG or PNG bytes).

        indices: frame numbers from 0, or a slice as Python has them. Raises IndexError for a number that no
        frame has: -1 stands for "none" in the index columns, never for the last frame.
        """
        values = self._cell(name).values
        if indices is None:
            indices = slice(None)
        wanted = range(len(values))[indices] if isinstance(indices, slice) else [int(i) for i in indices]
        if wanted and not 0 <= min(wanted) <= max(wanted) < len(values):
            raise self._no_such_frames(str([i for i in wanted if not 0 <= i < len(values)]))
        return [values[i].as_py() for i in wanted]

    def _no_such_frames(self, asked: str) -> IndexError:
        return IndexError(f"{self.clip_id} has frames 0 to {self.num_frames - 1}; asked for {asked}")


def open_dataset(path: str | Path, split: str | None = None) -> Dataset:
    """Open a prepared data set for reading, or one of its splits. Raises StoreError with what to do."""
    return Dataset(Path(path), split)


def _list_array(cell: pa.Scalar) -> np.ndarray[Any, Any]:
    """A list cell as [M] or [M,D], without passing through Python numbers."""
    values = cell.values
    nested = pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type)
    flat: np.ndarray[Any, Any] = (values.flatten() if nested else values).to_numpy(zero_copy_only=False)
    return flat.reshape(len(values), -1) if nested else flat
