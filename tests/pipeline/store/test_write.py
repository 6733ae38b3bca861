"""Shards: what is written is what is read, the same rows give the same bytes, and never half a shard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.records import Features
from syncdiff.pipeline.store.schema import CLIP_COLUMNS, CLIP_SCHEMA, check_version, feature_schema
from syncdiff.pipeline.store.write import ShardWriter, feature_record, write_atomic


def make_record(clip_id: str, frames: int, seed: int = 0, *, sound: bool = True) -> dict[str, Any]:
    """A clip row with plausible shapes and random content."""
    rng = np.random.default_rng(seed)

    def values(*shape: int) -> np.ndarray[Any, Any]:
        return rng.standard_normal((frames, *shape)).astype(np.float32)

    blobs = [rng.bytes(50) for _ in range(frames)]
    return {
        "clip_id": clip_id, "start_frame": 0, "split": "train", "speaker_id": None, "transcript": "A B",
        "words": [{"word": "A", "start_s": 0.0, "end_s": 0.5}], "source": "a.mp4", "source_sha256": "0" * 64,
        "source_fps": 25.0, "source_width_px": 64, "source_height_px": 48, "source_damage": None, "fps": 25.0,
        "num_frames": frames, "face_size_px": 32, "frames": blobs, "mouth_masks": blobs, "mouth_rois": None,
        "boxes_px": values(4), "landmarks_px": values(68, 2), "detection_scores": values(),
        "detected": np.ones(frames, bool), "crop_matrix": values(2, 3), "head_pose_deg": values(3),
        "mouth_opening": values(), "pose_index": np.arange(-1, frames - 1, dtype=np.int32),
        "identity_index": np.full((frames, 3), -1, np.int32), "audio_flac": b"flac" if sound else None,
        "audio_padded_samples": 0 if sound else None, "interocular_px": 20.0, "sharpness": 5.0,
        "coverage": 1.0, "num_faces": 1, "av_lag_frames": 0 if sound else None,
        "av_correlation": 0.9 if sound else None,
    }  # fmt: skip


def write(path: Path, records: list[dict[str, Any]], root: Path, group_bytes: int = 8 << 20) -> str:
    with ShardWriter(path, CLIP_SCHEMA, group_bytes) as writer:
        for record in records:
            writer.add(record)
        return writer.finish(root).sha256


def test_every_column_survives_the_round_trip(tmp_path: Path) -> None:
    records = [make_record("a", 5), make_record("b", 3, seed=1, sound=False)]
    write(tmp_path / "clips" / "x.parquet", records, tmp_path)
    table = pq.read_table(tmp_path / "clips" / "x.parquet")
    assert table.schema.equals(CLIP_SCHEMA)
    for row, record in zip(table.to_pylist(), records, strict=True):
        for column in CLIP_COLUMNS:
            found, put = row[column.name], record[column.name]
            if isinstance(put, np.ndarray):
                np.testing.assert_array_equal(np.array(found).reshape(put.shape), put)
            elif isinstance(put, float):
                assert found == pytest.approx(put)
            else:
                assert found == put


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    records = [make_record(str(i), 20, seed=i) for i in range(6)]
    first = write(tmp_path / "1" / "x.parquet", records, tmp_path, 10_000)
    assert write(tmp_path / "2" / "x.parquet", records, tmp_path, 10_000) == first
    assert sha256_file(tmp_path / "1" / "x.parquet") == first


def test_row_groups_stay_small_so_that_one_clip_can_be_read_alone(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", [make_record(str(i), 20, seed=i) for i in range(6)], tmp_path, 10_000)
    assert pq.ParquetFile(tmp_path / "x.parquet").metadata.num_row_groups == 6


def test_an_interrupted_shard_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        ShardWriter(tmp_path / "clips" / "x.parquet", CLIP_SCHEMA) as writer,
    ):
        writer.add(make_record("a", 5))
        raise KeyboardInterrupt
    assert list((tmp_path / "clips").iterdir()) == []


def test_a_shard_of_rejects_only_is_empty_but_readable(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", [], tmp_path)
    assert pq.read_table(tmp_path / "x.parquet").num_rows == 0


def test_features_keep_type_and_gaps(tmp_path: Path) -> None:
    schema = feature_schema("net", 8, 25.0, "float16")
    values = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float16)
    features = Features("net", values, 25.0, padded_steps=1)
    with ShardWriter(tmp_path / "f.parquet", schema) as writer:
        writer.add(feature_record("a", 5, features))
        writer.add(feature_record("b", 5, None))
        writer.finish(tmp_path)
    table = pq.read_table(tmp_path / "f.parquet")
    assert table["padded_steps"].to_pylist() == [1, 0]
    np.testing.assert_array_equal(np.array(table["values"][0].as_py(), np.float16), values)
    assert table["values"][1].as_py() is None


def test_images_are_left_out_of_the_statistics(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", [make_record("a", 5)], tmp_path)
    group = pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(0)
    by_path = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    images = [c for path, c in by_path.items() if path.startswith(("frames", "mouth_masks", "audio_flac"))]
    assert images
    assert not any(c.is_stats_set for c in images)
    assert {c.compression for c in images} == {"UNCOMPRESSED"}
    assert by_path["num_frames"].is_stats_set


def test_a_foreign_or_newer_file_is_refused() -> None:
    with pytest.raises(ValueError, match="not a syncdiff shard"):
        check_version(pa.schema([]), Path("x"))
    with pytest.raises(ValueError, match="schema version 99"):
        check_version(pa.schema([], {b"syncdiff.schema_version": b"99"}), Path("x"))


def test_write_atomic_replaces_whole_files(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"one")
    write_atomic(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()  # a folder in its place is one way to fail after the bytes are written
    with pytest.raises(OSError):
        write_atomic(tmp_path / "a", b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_every_column_says_what_it_is() -> None:
    for field in CLIP_SCHEMA:
        assert field.metadata[b"description"]
        assert b"unit" in field.metadata
