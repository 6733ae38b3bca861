"""Damage is noticed by whoever reads, named by `verify`, made good by `--repair` and by preparing again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from syncdiff.pipeline.avhubert.untrained import make_tiny_checkpoint
from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.report.summary import summarise
from syncdiff.pipeline.store.paths import StoreError
from syncdiff.pipeline.store.read import open_dataset
from syncdiff.pipeline.store.verify import verify

SHARD = "train-00000.parquet"


@pytest.fixture
def store(prepared_sample: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(prepared_sample, tmp_path / "store"))


def flip(path: Path, at: float = 0.5) -> None:
    """Change one bit of a file, at this share of its length; its size and time stay."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def failures(root: Path) -> set[str]:
    return {name for name, problems in verify(root) if problems}


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_a_damaged_shard_is_refused_with_its_name(store: Path, damage: Callable[[Path], object]) -> None:
    damage(store / "clips" / SHARD)
    with pytest.raises(StoreError, match=SHARD):
        dataset = open_dataset(store)
        [clip.frames() for clip in dataset if clip.shard in SHARD]
    damage(store / "features" / "mel" / "val-00000.parquet")
    with pytest.raises(StoreError, match=r"mel/val-00000\.parquet cannot be read"):
        [clip.features("mel") for clip in open_dataset(store, "val")]


def test_a_flipped_byte_is_noticed_by_whole_columns_and_by_reports(store: Path) -> None:
    for shard in (store / "clips").iterdir():
        metadata, size = pq.read_metadata(shard), shard.stat().st_size
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                start = column.dictionary_page_offset or column.data_page_offset
                flip(shard, (start + column.total_compressed_size - 0.5) / size)  # its last byte: data
    for read in (lambda: open_dataset(store).table(["frames"]), lambda: summarise(open_dataset(store))):
        with pytest.raises(StoreError, match=r"clips/.*parquet cannot be read"):
            read()


def test_every_file_has_a_hash(store: Path) -> None:
    assert not failures(store)
    names = {
        p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file() and ".work" not in p.parts
    }
    assert {name for name, _ in verify(store)} == names | {"(other files)"}
    for name in sorted(names):
        kept = (store / name).read_bytes()
        flip(store / name, 0.4 if name == "dataset.json" else 0.5)
        try:
            assert failures(store) == {name}, name
        except StoreError as error:  # a manifest that is no JSON any more
            assert name == "dataset.json" and "dataset.json" in str(error)
        (store / name).write_bytes(kept)


def test_what_fails_is_made_again_and_nothing_else(
    store: Path, prepared_sample: Path, prep: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    flip(store / "clips" / SHARD)
    flip(store / "features" / "mel" / "val-00000.parquet")
    (store / "features" / "logfbank" / "test-00000.parquet").unlink()
    truncate(store / "rejects.parquet")
    flip(store / "features" / "mel" / "extractor.json")
    times = {p: p.stat().st_mtime_ns for p in store.glob("clips/*")}
    said = prep("verify", store, check=False)
    assert said.returncode == 1 and "verify" in said.stdout and "--repair" in said.stdout
    assert "all well" in prep("verify", store, "--repair").stdout
    for path in sorted(prepared_sample.glob("clips/*")) + sorted(prepared_sample.glob("features/*/*")):
        assert sha256_file(store / path.relative_to(prepared_sample)) == sha256_file(path)
    again = {p.name for p, time in times.items() if p.stat().st_mtime_ns != time}
    assert again == {SHARD, "val-00000.parquet", "test-00000.parquet"}


def test_preparing_again_makes_what_is_damaged_and_says_so(
    sample_raw: Path,
    store: Path,
    prepared_sample: Path,
    prep: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    flip(store / "clips" / SHARD)
    (store / "clips" / SHARD).touch()  # a disk that loses bytes may keep the time; then `verify` notices
    truncate(store / "dataset.json")
    said = prep("lrs2", sample_raw, "--out", store).stdout
    assert f"made again: clips/{SHARD} is missing or damaged" in said
    assert (store / "dataset.json").read_bytes() == (prepared_sample / "dataset.json").read_bytes()
    assert not failures(store)


def test_a_damaged_manifest_is_repaired(
    store: Path, prepared_sample: Path, prep: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    truncate(store / "dataset.json")
    assert "dataset.json is damaged" in prep("verify", store, "--repair").stdout
    assert (store / "dataset.json").read_bytes() == (prepared_sample / "dataset.json").read_bytes()


def test_features_that_were_added_are_repaired_while_their_checkpoint_is_there(
    store: Path, tmp_path: Path, prep: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    weights = make_tiny_checkpoint(tmp_path / "tiny.safetensors")
    prep("features", "avhubert", store, "--checkpoint", weights, "--dtype", "float32")
    shard = store / "features" / "avhubert-audio-final" / SHARD
    whole = shard.read_bytes()
    truncate(shard)
    assert "all well" in prep("verify", store, "--repair").stdout
    assert shard.read_bytes() == whole
    truncate(shard)
    weights.unlink()
    said = prep("verify", store, "--repair", check=False)
    assert said.returncode == 1 and "avhubert-audio-final: run the command that added them" in said.stdout


@pytest.mark.parametrize("command", ["inspect", "export", "features"])
def test_a_command_on_a_truncated_shard_ends_with_a_sentence(
    store: Path, tmp_path: Path, command: str, prep: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    truncate(store / "clips" / SHARD)
    arguments: tuple[str | Path, ...] = (store,)
    if command == "export":
        arguments = ("frames", store, tmp_path / "out")
    elif command == "features":
        weights = make_tiny_checkpoint(tmp_path / "tiny.safetensors")
        arguments = ("avhubert", store, "--checkpoint", weights)
    said = prep(command, *arguments, check=False)
    assert said.returncode == 2 and "Traceback" not in said.stderr
    assert f"clips/{SHARD} cannot be read" in said.stderr and "--repair" in said.stderr


def test_features_made_of_a_damaged_shard_end_with_a_sentence(
    store: Path, tmp_path: Path, prep: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for at in (0.2, 0.4, 0.6, 0.8):
        flip(store / "clips" / SHARD, at)
    weights = make_tiny_checkpoint(tmp_path / "tiny.safetensors")
    said = prep("features", "avhubert", store, "--checkpoint", weights, "--modality", "both", check=False)
    assert said.returncode and "Traceback" not in said.stderr
    assert SHARD in said.stderr


def test_repair_says_what_it_lacks(
    store: Path, prep: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    flip(store / "clips" / SHARD)
    (store / ".work" / "inputs.json").unlink()
    said = prep("verify", store, "--repair", check=False)
    assert said.returncode == 2 and "--raw" in said.stderr
    shutil.rmtree(store / ".work")
    said = prep("verify", store, "--repair", "--raw", store.parent, check=False)
    assert said.returncode == 2 and "Traceback" not in said.stderr
