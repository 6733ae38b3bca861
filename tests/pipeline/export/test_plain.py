"""What other programs read: Wav2Lip's folders, WebDataset tars, plain files, and the shards themselves."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from syncdiff.pipeline.export.base import folder_name
from syncdiff.pipeline.export.plain import export_frames, export_webdataset
from syncdiff.pipeline.export.wav2lip import export_wav2lip
from syncdiff.pipeline.features.filterbanks import wav2lip_mel
from syncdiff.pipeline.store.read import open_dataset


def test_wav2lip_finds_what_its_training_reads(prepared_sample: Path, tmp_path: Path) -> None:
    dataset = open_dataset(prepared_sample)
    done = export_wav2lip(dataset, tmp_path)
    assert done.written == len(dataset)
    for split in ("train", "val", "test"):
        for line in (tmp_path / "filelists" / f"{split}.txt").read_text().splitlines():
            assert " " not in line
            images = sorted((tmp_path / line).glob("*.jpg"), key=lambda p: int(p.stem))
            wav, rate = soundfile.read(tmp_path / line / "audio.wav", dtype="int16")
            assert rate == 16_000 and len(wav) == 640 * len(images)
            assert [int(p.stem) for p in images] == list(range(len(images)))
            assert cv2.imread(str(images[0])) is not None
    clip = dataset[0]
    wav, _ = soundfile.read(tmp_path / folder_name(clip.clip_id) / "audio.wav", dtype="int16")
    np.testing.assert_array_equal(wav2lip_mel(wav).T, clip.features("mel"))
    again = export_wav2lip(dataset, tmp_path)
    assert (again.written, again.kept) == (0, len(dataset))


def test_webdataset_tars_hold_every_clip(prepared_sample: Path, tmp_path: Path) -> None:
    dataset = open_dataset(prepared_sample, "train")
    export_webdataset(dataset, tmp_path / "a", ["logfbank"])
    export_webdataset(dataset, tmp_path / "b", ["logfbank"])
    found = {}
    for path in sorted((tmp_path / "a").glob("*.tar")):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                handle = tar.extractfile(member)
                assert handle is not None
                found.setdefault(key, {})[extension] = handle.read()
    assert len(found) == len(dataset)
    sample = next(iter(found.values()))
    meta = json.loads(sample["json"])
    clip = dataset.by_id(meta["clip_id"])
    assert sample["00003.jpg"] == clip.blobs("frames", [3])[0]
    np.testing.assert_array_equal(np.load(io.BytesIO(sample["logfbank.npy"])), clip.features("logfbank"))
    assert len(meta["landmarks_px"]) == clip.num_frames


def test_plain_files_hold_what_the_store_holds(prepared_sample: Path, tmp_path: Path) -> None:
    dataset = open_dataset(prepared_sample, "test")
    assert export_frames(dataset, tmp_path, ["mel"]).written == len(dataset)
    clip = dataset[0]
    folder = tmp_path / folder_name(clip.clip_id)
    assert (
        len(list((folder / "frames").iterdir())) == len(list((folder / "masks").iterdir())) == clip.num_frames
    )
    np.testing.assert_array_equal(np.load(folder / "mel.npy"), clip.features("mel"))
    assert export_frames(dataset, tmp_path).kept == len(dataset)


def test_hugging_face_datasets_reads_the_shards(prepared_sample: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    files = sorted(map(str, (prepared_sample / "clips").glob("train-*.parquet")))
    loaded = datasets.load_dataset("parquet", data_files={"train": files}, cache_dir=str(tmp_path))["train"]
    ours = open_dataset(prepared_sample, "train")
    assert loaded.num_rows == len(ours)
    assert loaded[0]["clip_id"] == ours[0].clip_id
    assert loaded[0]["frames"][0] == ours[0].blobs("frames", [0])[0]
    np.testing.assert_array_equal(
        np.array(loaded[0]["landmarks_px"], np.float32).reshape(-1, 68, 2), ours[0].column("landmarks_px")
    )


def test_polars_reads_the_shards(prepared_sample: Path) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.scan_parquet(str(prepared_sample / "clips" / "*.parquet"))
    hours = frame.select(polars.col("num_frames").sum() / 25 / 3600).collect().item()
    ours = open_dataset(prepared_sample)
    assert hours == pytest.approx(sum(c.num_frames for c in ours) / 25 / 3600)
    row = frame.filter(polars.col("clip_id") == ours[0].clip_id).collect().row(0, named=True)
    np.testing.assert_array_equal(np.array(row["head_pose_deg"], np.float32), ours[0].column("head_pose_deg"))


def test_duckdb_reads_the_shards(prepared_sample: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    pattern = str(prepared_sample / "clips" / "*.parquet")
    rows = duckdb.execute(
        "select clip_id, len(frames), av_correlation from read_parquet(?) order by clip_id", [pattern]
    ).fetchall()
    ours = sorted(open_dataset(prepared_sample), key=lambda c: c.clip_id)
    assert [(r[0], r[1]) for r in rows] == [(c.clip_id, c.num_frames) for c in ours]
