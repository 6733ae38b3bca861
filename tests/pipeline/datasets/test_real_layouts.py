"""Real clips through every layout, built of links: rows, rejects with reasons, words of GRID."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow.parquet as pq
import pytest

from syncdiff.pipeline.store.read import Dataset, open_dataset

Prep: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.long

NO_ROW = {"dj_cartoon.mp4": "no-face", "noface_bbb.mp4": "no-face"}
PROFILE = "vox2_00002.mp4"  # a reject or a row are both right


def link(target: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def lrs2(videos: list[Path], root: Path) -> None:
    for n, video in enumerate(videos):
        link(video, root / "mvlrs_v1" / "main" / f"64{n:02d}" / f"00001{video.suffix}")
        (root / "mvlrs_v1" / "main" / f"64{n:02d}" / "00001.txt").write_text("Text:  SOME WORDS\nConf:  3\n")
    names = [f"64{n:02d}/00001 NF MV\n" for n in range(len(videos))]
    (root / "train.txt").write_text("".join(names[3:]))
    (root / "val.txt").write_text(names[0])
    (root / "test.txt").write_text("".join(names[1:3]))


def lrs3(videos: list[Path], root: Path) -> None:
    table = (
        "Text:  HELLO THERE\nConf:  5\n\nWORD START END ASDSCORE\nHELLO 0.10 0.42 5.1\nTHERE 0.42 0.90 4.0\n"
    )
    for n, video in enumerate(videos):
        folder = root / ("trainval" if n % 2 else "test") / f"id{n}"
        link(video, folder / "50001.mp4")
        (folder / "50001.txt").write_text(table)


def voxceleb2(videos: list[Path], root: Path) -> None:
    for n, video in enumerate(videos):
        link(video, root / ("dev" if n % 3 else "test") / "mp4" / f"id{n:05d}" / "AbC-_x" / "00001.mp4")


def hdtf(videos: list[Path], root: Path) -> None:
    for n, video in enumerate(videos):
        link(video, root / f"RD_Radio{n}_000.mp4")


def grid(videos: list[Path], root: Path) -> None:
    for video in videos:
        link(video, root / "s2" / "video" / f"{video.stem[-6:]}.mpg")
    link(videos[0].with_name("grid_s2_swwp2s.align"), root / "s2" / "align" / "swwp2s.align")


def prepare(
    prep: Prep, videos: list[Path], build: Callable[[list[Path], Path], None], tmp_path: Path
) -> tuple[Dataset, dict[str, str]]:
    raw, out = tmp_path / "raw", tmp_path / "out"
    build(videos, raw)
    prep(build.__name__, raw, "--out", out)
    rejects = {
        Path(raw / r["source"]).resolve().name: r["reason"]
        for r in pq.read_table(out / "rejects.parquet").to_pylist()
    }
    return open_dataset(out), rejects


@pytest.mark.parametrize("build", [lrs2, lrs3, voxceleb2, hdtf])
def test_the_same_clips_through_another_layout(
    build: Callable[[list[Path], Path], None], realdata: Path, prep: Prep, tmp_path: Path
) -> None:
    videos = sorted(p for p in realdata.iterdir() if p.suffix == ".mp4" and p.stat().st_size < 700_000)
    dataset, rejects = prepare(prep, videos, build, tmp_path)
    assert len(dataset) + len(rejects) == len(videos)
    assert {k: v for k, v in rejects.items() if k != PROFILE} == {
        k: v for k, v in NO_ROW.items() if k in {p.name for p in videos}
    }
    assert {c.value("split") for c in dataset} >= {"lrs2": {"train", "test"}, "hdtf": {"train"}}.get(
        build.__name__, {"test"}
    )


def test_grid_with_word_times(realdata: Path, prep: Prep, tmp_path: Path) -> None:
    videos = sorted(realdata.glob("grid_*.mpg"))
    dataset, rejects = prepare(prep, videos, grid, tmp_path)
    assert len(dataset) == len(videos) and not rejects
    (clip,) = [c for c in dataset if "swwp2s" in c.clip_id]
    words = clip.value("words")
    assert [w["word"] for w in words] == clip.value("transcript").split()
    assert all(0 <= w["start_s"] < w["end_s"] <= clip.num_frames / 25 for w in words)
    assert all(c.value("speaker_id") == "s2" for c in dataset)


def test_all_clips_as_a_plain_folder(realdata: Path, prep: Prep, tmp_path: Path) -> None:
    prep("folder", realdata, "--out", tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    rejects = {r["source"]: r["reason"] for r in pq.read_table(tmp_path / "out/rejects.parquet").to_pylist()}
    assert len({c.value("source") for c in dataset}) + len(rejects) == 25
    assert {k: v for k, v in rejects.items() if k != PROFILE} == NO_ROW
    by_source = {c.value("source"): c for c in dataset}
    assert by_source["noaudio_iplap_129.mp4"].audio() is None
    talk = by_source["twoface_interview.mp4"]
    assert talk.value("num_faces") == 2 and talk.value("av_correlation") > 0.3
    known = by_source["syncnet_example.avi"]
    assert abs(known.value("av_lag_frames") + 3) <= 2 and known.value("av_correlation") > 0.7
    # Variable rate: sound and picture of the row are as long as the source says.
    for name, seconds in (("vexp_RD_Radio10.mp4", 2.112), ("vretalk_1.mp4", 6.131)):
        assert abs(by_source[name].num_frames / 25 - seconds) < 0.1
        assert len(by_source[name].audio()) == 640 * by_source[name].num_frames
    for clip in dataset:
        assert np.isfinite(clip.column("landmarks_px")).all()
