"""A folder full of trouble: each input ends as a row or as a reject with a reason, and nothing is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest

from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.store.read import open_dataset

ODD_NAMES = (
    "with space.mp4",
    'it\'s "quoted" & $(reboot).mp4',
    "new\nline.mp4",
    "-y.mp4",
    "日本語 ümläut.mp4",
    "100%25 sure.mp4",
)


@pytest.fixture(scope="module")
def trouble(
    sample_raw: Path,
    media: ModuleType,
    prep: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path, str]:
    """The folder, the data set made of it, and what the command said."""
    raw, out = tmp_path_factory.mktemp("trouble") / "raw", tmp_path_factory.mktemp("out") / "store"
    raw.mkdir()
    good = next((sample_raw / "mvlrs_v1" / "main" / "astronaut").glob("*.mp4"))
    make_trouble(raw, good, media)
    before = state(raw)
    done = prep("folder", raw, "--out", out)
    assert state(raw) == before
    return raw, out, done.stdout


def state(raw: Path) -> dict[str, tuple[int, int]]:
    """Name -> size and modification time of everything below a folder."""
    return {str(p.relative_to(raw)): (s.st_size, s.st_mtime_ns) for p in raw.rglob("*") for s in [p.lstat()]}


def make_trouble(raw: Path, good: Path, media: ModuleType) -> None:
    shutil.copy(good, raw / "good.mp4")
    for name in ODD_NAMES:
        shutil.copy(good, raw / name)
    for folder in ("a", "b"):  # the same base name twice
        (raw / folder).mkdir()
        shutil.copy(good, raw / folder / "00001.mp4")
    (raw / "empty.mp4").touch()
    (raw / "text.mp4").write_text("I am no video. " * 100)
    (raw / "truncated.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (raw / "dangling.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(raw / "pipe.mp4")
    (raw / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{good}\n")
    media.ffmpeg("-i", good, "-vn", "-c", "copy", raw / "sound only.mp4")
    media.ffmpeg("-i", good, "-an", "-c", "copy", raw / "picture only.mp4")
    media.ffmpeg("-i", good, "-frames:v", "1", raw / "one frame.mp4")
    wide = "scale=4320:4320,pad=7680:4320:1680:0"
    media.ffmpeg("-i", good, "-vf", wide, "-frames:v", "30", "-preset", "ultrafast", raw / "8k.mp4")
    media.ffmpeg("-i", good, "-vf", "scale=9000:9000", "-frames:v", "1", "-c:v", "mjpeg", raw / "bomb.mkv")
    media.picture_clip(raw / "nobody.mkv", media.moving_frames(50, 320, 240))


def reasons(out: Path) -> dict[str, str]:
    """Source -> reason of every reject."""
    return {r["source"]: r["reason"] for r in pq.read_table(out / "rejects.parquet").to_pylist()}


def rows(out: Path) -> set[str]:
    return {clip.value("source") for clip in open_dataset(out)}


def test_every_input_is_a_row_or_a_reject(trouble: tuple[Path, Path, str]) -> None:
    raw, out, said = trouble
    inputs = [p for p in raw.rglob("*") if not p.is_dir()]
    assert len(rows(out)) + len(reasons(out)) == len(inputs)
    assert f"{len(inputs)} inputs = {len(rows(out))} prepared + {len(reasons(out))} rejected" in said


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.mp4", "empty-file"),
        ("text.mp4", "not-media"),
        ("truncated.mp4", "truncated"),
        ("dangling.mp4", "broken-symlink"),
        ("pipe.mp4", "not-a-file"),
        ("list.mp4", "not-media"),
        ("bomb.mkv", "too-large"),
        ("sound only.mp4", "no-video"),
        ("one frame.mp4", "track-too-short"),
        ("nobody.mkv", "no-face"),
    ],
)
def test_a_reject_says_why(trouble: tuple[Path, Path, str], name: str, reason: str) -> None:
    assert reasons(trouble[1])[name] == reason


@pytest.mark.parametrize("name", ["good.mp4", "picture only.mp4", "8k.mp4", "a/00001.mp4", "b/00001.mp4"])
def test_a_usable_input_becomes_a_row(trouble: tuple[Path, Path, str], name: str) -> None:
    assert name in rows(trouble[1])


def test_odd_names_change_nothing(trouble: tuple[Path, Path, str]) -> None:
    clips = list(open_dataset(trouble[1]))
    hashes = {c.value("source_sha256") for c in clips if c.num_frames == clips[0].num_frames}
    assert len(rows(trouble[1])) == len(ODD_NAMES) + 5
    assert len({c.clip_id for c in clips}) == len(clips)
    assert len(hashes) <= 2


def test_no_sound_is_kept_and_marked(trouble: tuple[Path, Path, str]) -> None:
    (clip,) = [c for c in open_dataset(trouble[1]) if c.value("source") == "picture only.mp4"]
    assert clip.audio() is None
    assert clip.value("av_correlation") is None
    assert clip.features("logfbank") is None
    assert clip.frames([0]).shape[-1] == 3


def test_a_face_is_the_same_in_8k(trouble: tuple[Path, Path, str]) -> None:
    by_source = {c.value("source"): c for c in open_dataset(trouble[1])}
    small, large = by_source["good.mp4"].frames([10]), by_source["8k.mp4"].frames([10])
    assert np.abs(small.astype(int) - large).mean() < 8


def test_a_source_that_was_replaced_is_prepared_again_and_that_is_said(
    sample_raw: Path, prep: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    videos = sorted((sample_raw / "mvlrs_v1" / "main" / "astronaut").glob("*.mp4"))[:3]
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for name, video in zip(("a", "b"), videos, strict=False):
        shutil.copy2(video, raw / f"{name}.mp4")
    (raw / "c.mp4").write_bytes(b"no video yet")
    prep("folder", raw, "--out", out)
    before = [clip.value("source_sha256") for clip in open_dataset(out)]
    os.utime(raw / "a.mp4", ns=(0, 0))  # only its time: the same video
    shutil.copy2(videos[2], raw / "b.mp4")
    shutil.copy2(videos[0], raw / "c.mp4")
    said = prep("folder", raw, "--out", out).stdout
    changed = {line for line in said.splitlines() if line.startswith("made again:")}
    assert changed == {f"made again: {name}.mp4 has changed since it was prepared" for name in "bc"}
    after = [clip.value("source_sha256") for clip in open_dataset(out)]
    assert after == [before[0], sha256_file(videos[2]), before[0]]
    assert "made again" not in prep("folder", raw, "--out", out).stdout


def test_nothing_is_removed_before_the_cluster_answers(
    sample_raw: Path,
    prepared_sample: Path,
    prep: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    store = Path(shutil.copytree(prepared_sample, tmp_path / "store"))
    before = state(store)
    nobody = ("--overwrite", "--ray-address", "ray://127.0.0.1:1")
    said = prep("lrs2", sample_raw, "--out", store, *nobody, check=False)
    assert said.returncode and "127.0.0.1" in said.stderr
    assert state(store) == before


def test_a_data_set_is_never_written_over_the_raw_data(
    prep: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    (mine / ".work").mkdir(parents=True)
    (mine / "dataset.json").write_text('{"my": "notes"}')
    (mine / "a.mp4").write_bytes(b"a video that took years")
    for out in (mine, mine / "store", tmp_path):
        said = prep("folder", mine, "--out", out, "--overwrite", check=False)
        assert said.returncode == 2 and "raw data" in said.stderr
    assert sorted(p.name for p in mine.iterdir()) == [".work", "a.mp4", "dataset.json"]


@pytest.mark.parametrize("kind", ["missing", "junk"])
def test_a_wrong_checkpoint_shows_before_the_first_clip(
    prep: Callable[..., subprocess.CompletedProcess[str]], sample_raw: Path, tmp_path: Path, kind: str
) -> None:
    checkpoint = tmp_path / "avhubert.pt"
    if kind == "junk":
        checkpoint.write_bytes(b"no checkpoint " * 1000)
    done = prep("lrs2", sample_raw, "--out", tmp_path / "store", "--avhubert", checkpoint, check=False)
    assert done.returncode == 1
    assert "avhubert.pt" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "store").exists()
