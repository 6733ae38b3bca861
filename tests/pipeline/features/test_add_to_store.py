"""Features added to a prepared data set: only what is missing, beside the clips, said what they are."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from syncdiff.pipeline.avhubert.extractor import load_avhubert
from syncdiff.pipeline.avhubert.untrained import make_tiny_checkpoint
from syncdiff.pipeline.features.add_to_store import extract_shard, unfinished_shards
from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.store.manifest import write_manifest
from syncdiff.pipeline.store.paths import StoreError
from syncdiff.pipeline.store.read import open_dataset
from syncdiff.pipeline.store.verify import verify

ID = "avhubert-audio-final"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def store(prepared_sample: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(prepared_sample, tmp_path / "store"))


def add(root: Path, checkpoint: Path, dtype: str = "float16") -> list[str]:
    """Make what is missing, in this process; the shards that were made."""
    extractor = load_avhubert(checkpoint, dtype=dtype)
    shards = unfinished_shards(root, extractor)
    for shard in shards:
        extract_shard(root, shard, extractor)
    write_manifest(open_dataset(root).paths)
    return shards


def test_each_row_has_its_features_and_images_are_untouched(store: Path, checkpoint: Path) -> None:
    before = {p: sha256_file(p) for p in (store / "clips").iterdir()}
    assert len(add(store, checkpoint)) == len(open_dataset(store).manifest["shards"])
    assert {p: sha256_file(p) for p in (store / "clips").iterdir()} == before
    dataset = open_dataset(store)
    assert dataset.manifest["features"] == [ID, "logfbank", "mel"]
    assert dataset.extractors[ID]["untrained"] is True
    for clip in dataset:
        values = clip.features(ID)
        assert values is not None and values.shape == (clip.num_frames, 64) and values.dtype == np.float16
    assert not [problem for _, problems in verify(store) for problem in problems]


def test_stored_values_are_the_encoders(store: Path, checkpoint: Path) -> None:
    from syncdiff.pipeline.features.extractor import ExtractorInput

    add(store, checkpoint, "float32")
    clip = open_dataset(store)[0]
    alone = load_avhubert(checkpoint)([ExtractorInput(clip.audio(), clip.num_frames)])[0]
    np.testing.assert_allclose(clip.features(ID), alone.values, atol=2e-5)


def test_a_second_pass_makes_only_what_is_missing(store: Path, checkpoint: Path) -> None:
    shards = add(store, checkpoint)
    before = {p.name: sha256_file(p) for p in (store / "features" / ID).glob("*.parquet")}
    (store / "features" / ID / f"{shards[1]}.parquet").unlink()
    assert add(store, checkpoint) == [shards[1]]
    assert {p.name: sha256_file(p) for p in (store / "features" / ID).glob("*.parquet")} == before
    assert add(store, checkpoint) == []


def test_other_weights_under_the_same_name_are_refused(store: Path, checkpoint: Path, tmp_path: Path) -> None:
    add(store, checkpoint)
    other = make_tiny_checkpoint(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(StoreError, match="describes other features of the same name"):
        add(store, other)


def test_video_features_need_mouth_pictures(
    sample_raw: Path, prep: Callable[..., subprocess.CompletedProcess[str]], checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "no.yaml").write_text("mouth_rois: false\nfeatures: []\n")
    out = tmp_path / "store"
    prep("lrs2", sample_raw, "--out", out, "--config", tmp_path / "no.yaml", "--limit", "2")
    with pytest.raises(StoreError, match="holds no mouth pictures"):
        unfinished_shards(out, load_avhubert(checkpoint, "video"))


def test_the_command_makes_them_on_ray_and_continues(
    store: Path, checkpoint: Path, prep: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    said = prep(
        "features", "avhubert", store, "--checkpoint", checkpoint, "--modality", "both", "--layer", "2"
    )
    assert "untrained" in said.stdout
    clip = open_dataset(store)[0]
    assert clip.features("avhubert-both-2").shape == (clip.num_frames, 64)
    again = prep(
        "features", "avhubert", store, "--checkpoint", checkpoint, "--modality", "both", "--layer", "2"
    )
    assert "0 shards made" in again.stdout


@pytest.mark.parametrize("content", [None, "{", '{"id": "another"}'])
def test_a_damaged_description_is_written_anew(store: Path, checkpoint: Path, content: str | None) -> None:
    add(store, checkpoint)
    manifest = (store / "dataset.json").read_bytes()
    path = store / "features" / ID / "extractor.json"
    described = path.read_bytes()
    path.unlink() if content is None else path.write_text(content)
    assert [name for name, problems in verify(store) if problems] == [f"features/{ID}/extractor.json"]
    assert add(store, checkpoint) == []
    assert (path.read_bytes(), (store / "dataset.json").read_bytes()) == (described, manifest)


def test_without_a_checkpoint_the_command_says_how_to_add_them_later(
    sample_raw: Path, prep: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    said = prep("lrs2", sample_raw, "--out", tmp_path / "store", "--limit", "1").stdout
    assert "licence" in said.lower() and "published at" in said
    assert f"syncdiff-prep features avhubert {tmp_path / 'store'} --checkpoint" in said


def test_a_wrong_checkpoint_is_named(
    prepared_sample: Path, prep: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "x.pt").write_text("no checkpoint")
    said = prep("features", "avhubert", prepared_sample, "--checkpoint", tmp_path / "x.pt", check=False)
    assert said.returncode == 1 and "x.pt" in said.stderr
    assert not (prepared_sample / "features" / ID).exists()
    assert json.loads((prepared_sample / "dataset.json").read_text())["features"] == ["logfbank", "mel"]


def test_polars_and_duckdb_read_half_precision(store: Path, checkpoint: Path) -> None:
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    add(store, checkpoint)
    pattern = str(store / "features" / ID / "*.parquet")
    clip = open_dataset(store)[0]
    row = polars.read_parquet(pattern).filter(polars.col("clip_id") == clip.clip_id).row(0, named=True)
    np.testing.assert_array_equal(np.array(row["values"], np.float16), clip.features(ID))
    lengths = duckdb.execute("select len(values) from read_parquet(?)", [pattern]).fetchall()
    assert sorted(n for (n,) in lengths) == sorted(c.num_frames for c in open_dataset(store))
