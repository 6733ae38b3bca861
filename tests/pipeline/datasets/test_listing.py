"""Each layout with the variations its copies have, and what is said of a folder that is none of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from syncdiff.pipeline.datasets.base import LayoutError
from syncdiff.pipeline.datasets.listing import LAYOUTS, Listing, read_layout, resembles, source_path


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def ids(listing: Listing) -> list[str]:
    return [clip.id for clip in listing.clips]


def reasons(listing: Listing) -> list[tuple[str, str]]:
    return [(reject.source, reject.reason) for reject in listing.rejects]


def lists(folder: Path, **lines: Iterable[str]) -> None:
    for split, entries in lines.items():
        (folder / f"{split}.txt").write_text("".join(f"{line}\n" for line in entries))


@pytest.fixture
def lrs2(tmp_path: Path) -> Path:
    base = put(tmp_path, *(f"mvlrs_v1/main/{name}.mp4" for name in ("a/1", "a/2", "b/1"))) / "mvlrs_v1"
    put(base, "pretrain/a/1.mp4", "main/a/1.txt")
    lists(tmp_path, train=["a/1"], val=["a/2"], test=["b/1"])
    return tmp_path


LRS2_IDS = ["lrs2/pretrain/a/1", "lrs2/test/b/1", "lrs2/train/a/1", "lrs2/val/a/2"]


def test_lrs2(lrs2: Path) -> None:
    listing = read_layout("lrs2", lrs2)
    assert ids(listing) == LRS2_IDS
    assert not listing.rejects and not listing.notes
    clip = listing.clips[2]
    assert (clip.split, clip.speaker_id, clip.source) == ("train", "a", "mvlrs_v1/main/a/1.mp4")
    assert clip.path == lrs2 / "mvlrs_v1/main/a/1.mp4"


@pytest.mark.parametrize("root", [".", "mvlrs_v1"])
@pytest.mark.parametrize("place", [".", "mvlrs_v1", "mvlrs_v1/main", "filelists"])
def test_lrs2_root_and_lists_wherever_they_lie(lrs2: Path, root: str, place: str) -> None:
    if root == "mvlrs_v1" and place == "filelists":
        place = "mvlrs_v1/filelists"
    (lrs2 / place).mkdir(exist_ok=True)
    for split in ("train", "val", "test"):
        (lrs2 / f"{split}.txt").rename(lrs2 / place / f"{split}.txt")
    assert ids(read_layout("lrs2", lrs2 / root)) == LRS2_IDS


def test_lrs2_inside_a_wrapper(lrs2: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outer = tmp_path_factory.mktemp("outer")
    (outer / "LRS2").symlink_to(lrs2)
    assert ids(read_layout("lrs2", outer)) == LRS2_IDS


@pytest.mark.parametrize(
    "line",
    [
        "a/1 MV 12.3",
        "main/a/1",
        "mvlrs_v1/main/a/1",
        "a/1.mp4",
        "a/1.txt",
        "./a/1",
        "a\\1",
        "a/1\r",
        "\ufeffa/1",
        "  a/1 ",
    ],
)
def test_lrs2_spellings_of_a_line(lrs2: Path, line: str) -> None:
    (lrs2 / "train.txt").write_bytes(f"{line}\n\n".encode())
    assert ids(read_layout("lrs2", lrs2, splits=["train"])) == ["lrs2/train/a/1"]


def test_lrs2_list_may_name_pretrain(lrs2: Path) -> None:
    lists(lrs2, train=["a/1", "pretrain/a/1"])
    listing = read_layout("lrs2", lrs2, splits=["train"])
    assert [clip.source for clip in listing.clips] == ["mvlrs_v1/main/a/1.mp4", "mvlrs_v1/pretrain/a/1.mp4"]
    assert ids(listing) == ["lrs2/train/mvlrs_v1/main/a/1.mp4", "lrs2/train/mvlrs_v1/pretrain/a/1.mp4"]


def test_lrs2_bad_lines_become_rejects(lrs2: Path) -> None:
    lists(lrs2, train=["a/1", "a/9", "../../outside", "/etc/passwd", "b/1", "a/1"])
    listing = read_layout("lrs2", lrs2, splits=["train", "test"])
    assert ids(listing) == ["lrs2/test/b/1", "lrs2/train/a/1"]
    assert sorted(reasons(listing)) == [
        ("../../outside", "outside-root"),
        ("/etc/passwd", "outside-root"),
        ("mvlrs_v1/main/a/9.mp4", "missing-file"),
        ("mvlrs_v1/main/b/1.mp4", "listed-twice"),
    ]
    assert listing.notes == ("train.txt names some clips more than once",)
    assert {r.clip_id for r in listing.rejects if r.reason != "outside-root"} == {
        "lrs2/train/a/9",
        "lrs2/train/b/1",
    }
    only_train = read_layout("lrs2", lrs2, splits=["train"])
    assert ids(only_train) == ["lrs2/train/a/1"]  # b/1 is test's, whether test is asked for or not
    assert reasons(only_train) == reasons(listing)
    assert "line 2" in next(r.detail for r in listing.rejects if r.reason == "missing-file")


def test_lrs2_unlisted_and_missing_lists_are_noted(lrs2: Path) -> None:
    (lrs2 / "val.txt").unlink()
    listing = read_layout("lrs2", lrs2)
    assert [clip.split for clip in listing.clips] == ["pretrain", "test", "train"]
    assert any("no val.txt" in note for note in listing.notes)
    assert any("1 videos are on no list" in note for note in listing.notes)


def test_lrs2_counts_main_where_no_list_names_any_of_it(lrs2: Path) -> None:
    for split in ("train", "val", "test"):
        (lrs2 / f"{split}.txt").unlink()
    listing = read_layout("lrs2", lrs2)
    assert ids(listing) == ["lrs2/pretrain/a/1"]
    assert "3 videos are on no list and are left out" in listing.notes
    assert any("no train.txt, val.txt, test.txt" in note for note in listing.notes)


def test_a_folder_above_several_copies_is_refused_and_above_one_says_which(tmp_path: Path) -> None:
    put(tmp_path, "one/mvlrs_v1/main/a/1.mp4", "two/notes.txt")
    lists(tmp_path / "one", train=["a/1"])
    listing = read_layout("lrs2", tmp_path)
    assert ids(listing) == ["lrs2/train/a/1"]
    assert "the data set taken is one/mvlrs_v1" in listing.notes
    put(tmp_path, "two/mvlrs_v1/main/b/1.mp4")
    with pytest.raises(LayoutError, match="several copies of LRS2: one/mvlrs_v1, two/mvlrs_v1"):
        read_layout("lrs2", tmp_path)
    assert len(read_layout("folder", tmp_path).clips) == 2  # as plain videos both are read


@pytest.mark.parametrize(
    ("layout", "split", "clip"), [("lrs3", "trainval", "a/1"), ("voxceleb2", "dev", "id00001/v/1")]
)
def test_a_split_that_is_there_twice_is_not_chosen_silently(
    tmp_path: Path, layout: str, split: str, clip: str
) -> None:
    wrappers = [f"{layout[:4] if layout == 'lrs3' else 'vox'}_{name}" for name in "ab"]
    put(tmp_path, f"{wrappers[0]}/{split}/{clip}.mp4", f"{wrappers[1]}/test/{clip}.mp4")
    listing = read_layout(layout, tmp_path)
    assert len(listing.clips) == 2  # each split has a folder of its own, as unpacking leaves them
    assert f"the {split} taken is {wrappers[0]}/{split}" in listing.notes
    put(tmp_path, f"{wrappers[1]}/{split}/{clip}.mp4")
    with pytest.raises(
        LayoutError, match=f"holds {split} several times: {wrappers[0]}/{split}, {wrappers[1]}"
    ):
        read_layout(layout, tmp_path)


def test_lrs2_without_lists_is_refused(lrs2: Path) -> None:
    for split in ("train", "val", "test"):
        (lrs2 / f"{split}.txt").unlink()
    assert ids(read_layout("lrs2", lrs2, splits=["pretrain"])) == ["lrs2/pretrain/a/1"]
    with pytest.raises(LayoutError, match="no split test"):
        read_layout("lrs2", lrs2, splits=["test"])
    (lrs2 / "mvlrs_v1/pretrain").rename(lrs2 / "gone")
    with pytest.raises(LayoutError, match=r"test\.txt are neither"):
        read_layout("lrs2", lrs2)


@pytest.mark.parametrize("wrapper", ["", "lrs3_v0.4/", "anything/"])
def test_lrs3(tmp_path: Path, wrapper: str) -> None:
    put(tmp_path, *(f"{wrapper}{split}/x/1.mp4" for split in ("pretrain", "trainval", "test")))
    listing = read_layout("lrs3", tmp_path)
    assert ids(listing) == ["lrs3/pretrain/x/1", "lrs3/test/x/1", "lrs3/trainval/x/1"]
    assert [clip.speaker_id for clip in listing.clips] == ["x"] * 3
    assert resembles(tmp_path) == "lrs3"


def test_lrs3_unpacked_one_archive_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "lrs3_pretrain/pretrain/x/1.mp4", "lrs3_trainval/x/1.mp4", "lrs3_test_v0.4/test/x/1.mp4")
    assert ids(read_layout("lrs3", tmp_path)) == ["lrs3/pretrain/x/1", "lrs3/test/x/1", "lrs3/trainval/x/1"]


def test_lrs3_root_may_be_a_split(tmp_path: Path) -> None:
    put(tmp_path, "test/x/1.mp4", "test/x/2.mp4")
    assert ids(read_layout("lrs3", tmp_path / "test")) == ["lrs3/test/x/1", "lrs3/test/x/2"]


@pytest.mark.parametrize("dev", ["dev/mp4", "dev", "vox2_dev_mp4/dev/mp4", "VoxCeleb2/dev/mp4"])
def test_voxceleb2(tmp_path: Path, dev: str) -> None:
    put(tmp_path, f"{dev}/id00012/21Uxsk56VDQ/00001.mp4", f"{dev}/id00012/other/00001.mp4")
    listing = read_layout("voxceleb2", tmp_path)
    assert ids(listing) == ["voxceleb2/dev/id00012/21Uxsk56VDQ/00001", "voxceleb2/dev/id00012/other/00001"]
    assert {clip.speaker_id for clip in listing.clips} == {"id00012"}


def test_voxceleb2_leaves_sound_folders_alone_and_reads_both_splits(tmp_path: Path) -> None:
    put(tmp_path, "dev/mp4/id1/v/1.mp4", "dev/aac/id1/v/1.m4a", "test/mp4/id1/v/1.mp4")
    assert ids(read_layout("voxceleb2", tmp_path)) == ["voxceleb2/dev/id1/v/1", "voxceleb2/test/id1/v/1"]
    assert ids(read_layout("voxceleb2", tmp_path, splits=["test"])) == ["voxceleb2/test/id1/v/1"]


@pytest.mark.parametrize(
    "place",
    ["s1", "s1/video", "s1/s1", "s1/video/mpg_6000", "s1.mpg_6000/s1", "video/s1", "gridcorpus/S1/video"],
)
def test_grid(tmp_path: Path, place: str) -> None:
    put(tmp_path, f"{place}/bbaf2n.mpg", "readme.txt", "other/notgrid.mpg")
    listing = read_layout("grid", tmp_path)
    assert [(clip.id, clip.speaker_id) for clip in listing.clips] == [(f"grid/train/{place}/bbaf2n", "s1")]
    assert listing.notes == ("1 videos lie outside the folders of this layout and are left out",)
    assert resembles(tmp_path) == "grid"


def test_hdtf(tmp_path: Path) -> None:
    put(tmp_path, "RD_Radio1_000.mp4", "clips/WDA_AdamSchiff1_000.mp4", "test/WRA_X0_1.mp4")
    listing = read_layout("hdtf", tmp_path)
    assert [(clip.id, clip.speaker_id) for clip in listing.clips] == [
        ("hdtf/test/WRA_X0_1", "WRA_X"),
        ("hdtf/train/RD_Radio1_000", "RD_Radio1"),
        ("hdtf/train/clips/WDA_AdamSchiff1_000", "WDA_AdamSchiff"),
    ]
    assert not listing.notes
    put(tmp_path / "renamed", "a.mp4")
    assert "no file is named as in HDTF" in read_layout("hdtf", tmp_path / "renamed").notes[0]


def test_folder_suffixes_splits_and_speakers(tmp_path: Path) -> None:
    put(tmp_path, "a.MP4", "x/b.webm", "x/y/c.MoV", "x/notes.txt", "x/sound.wav", "Test/d.mkv", "dev/p/e.avi")
    listing = read_layout("folder", tmp_path)
    assert [(clip.id, clip.speaker_id) for clip in listing.clips] == [
        ("folder/test/d", None),
        ("folder/train/a", None),
        ("folder/train/x/b", "x"),
        ("folder/train/x/y/c", "y"),
        ("folder/val/p/e", "p"),
    ]
    assert ids(read_layout("folder", tmp_path, splits=["val"])) == ["folder/val/p/e"]
    with pytest.raises(LayoutError, match="has no split pretrain; it has test, train, val"):
        read_layout("folder", tmp_path, splits=["val", "pretrain"])


def test_splits_inside_a_single_folder_are_seen(tmp_path: Path) -> None:
    put(tmp_path, "HDTF/train/RD_a_0.mp4", "HDTF/test/RD_b_0.mp4")
    assert ids(read_layout("hdtf", tmp_path)) == ["hdtf/test/RD_b_0", "hdtf/train/RD_a_0"]


def test_folder_that_is_a_known_data_set_says_so(lrs2: Path) -> None:
    assert "looks like lrs2" in read_layout("folder", lrs2).notes[0]


def test_same_name_with_two_suffixes_keeps_them(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "a.avi", "b.mp4", "dev/a.mp4", "val/a.mp4")
    assert ids(read_layout("folder", tmp_path)) == [
        "folder/train/a.avi",
        "folder/train/a.mp4",
        "folder/train/b",
        "folder/val/dev/a.mp4",
        "folder/val/val/a.mp4",
    ]


def test_odd_names_survive(tmp_path: Path) -> None:
    names = [
        "a b.mp4",
        'it\'s "q".mp4',
        "new\nline.mp4",
        "-dash.mp4",
        "口型 é.mp4",
        "50%.mp4",
        "a#1@3.mp4",
        ";$(x).mp4",
    ]
    put(tmp_path, *names)
    with open(os.fsencode(tmp_path) + b"/bad\xff.mp4", "wb"):  # noqa: PTH123 - a name that is no text
        pass
    listing = read_layout("folder", tmp_path)
    assert len(listing.clips) == len(names) + 1
    for clip in listing.clips:
        clip.id.encode()
        clip.source.encode()
        assert source_path(listing.root, clip.source) == clip.path
        assert clip.path.is_file()
    assert {
        "folder/train/new%0Aline",
        "folder/train/bad%FF",
        "folder/train/a%231%403",
        "folder/train/50%25",
    } < set(ids(listing))


def test_links(tmp_path: Path) -> None:
    real = put(tmp_path / "real", "a.mp4", "deep/b.mp4")
    root = put(tmp_path / "root", "c.mp4")
    (root / "file.mp4").symlink_to(real / "a.mp4")
    (root / "dir").symlink_to(real)
    (root / "again").symlink_to(real)
    (root / "loop").symlink_to(root)
    (root / "self.mp4").symlink_to("self.mp4")
    (root / "gone.mp4").symlink_to("nowhere.mp4")
    (root / "lost").symlink_to("/nowhere")
    (root / "page.txt").symlink_to("/nowhere")
    listing = read_layout("folder", root)
    assert ids(listing) == [f"folder/train/{name}" for name in ("again/a", "again/deep/b", "c", "file")]
    assert reasons(listing) == [
        ("gone.mp4", "broken-symlink"),
        ("lost", "broken-symlink"),
        ("self.mp4", "broken-symlink"),
    ]
    assert sum("listed already" in note for note in listing.notes) == 2
    for i in range(20):
        (root / f"more{i}").symlink_to(real)
    notes = read_layout("folder", root).notes
    assert len(notes) == 11 and notes[-1] == "and 12 more such links"


def test_pipe_is_not_a_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to("pipe.mp4")
    assert reasons(read_layout("folder", tmp_path)) == [
        ("link.mp4", "not-a-file"),
        ("pipe.mp4", "not-a-file"),
    ]


def test_closed_folder_is_a_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.mp4", "closed/b.mp4")
    scandir = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:  # root may read everything, so chmod proves nothing
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = read_layout("folder", tmp_path)
    assert ids(listing) == ["folder/train/a"]
    assert reasons(listing) == [("closed", "unreadable-folder")]


def test_hidden_things_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "._a.mp4", ".git/b.mp4", "__MACOSX/c.mp4", ".hidden.mp4")
    listing = read_layout("folder", tmp_path)
    assert ids(listing) == ["folder/train/.hidden", "folder/train/a"]
    assert listing.notes == ("left out 2 hidden folders", "left out 1 macOS side files (._*)")


def build(root: Path, layout: str) -> Path:
    files = {
        "lrs2": ["mvlrs_v1/main/a/1.mp4"],
        "lrs3": ["trainval/a/1.mp4", "test/a/2.mp4"],
        "voxceleb2": ["dev/mp4/id00001/v/1.mp4"],
        "hdtf": ["RD_Radio1_000.mp4"],
        "grid": ["s1/video/bbaf2n.mpg"],
        "folder": ["some/video.mp4"],
    }
    put(root, *files[layout])
    lists(root, **({"train": ["a/1"]} if layout == "lrs2" else {}))
    return root


@pytest.mark.parametrize("actual", LAYOUTS)
@pytest.mark.parametrize("asked", LAYOUTS)
def test_a_folder_of_another_layout_is_named(tmp_path: Path, asked: str, actual: str) -> None:
    root = build(tmp_path, actual)
    assert resembles(root) == actual
    if asked == actual or asked == "folder" or (asked, actual) == ("hdtf", "folder"):
        assert read_layout(asked, root).clips
        return
    with pytest.raises(LayoutError) as error:
        read_layout(asked, root)
    assert "Looked for:" in str(error.value) and "Found:" in str(error.value)
    assert f"syncdiff-prep {actual} {root}" in str(error.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_empty_folder(tmp_path: Path, layout: str) -> None:
    with pytest.raises(LayoutError, match="an empty folder"):
        read_layout(layout, tmp_path)


def test_the_inside_of_a_data_set_points_to_its_root(lrs2: Path, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=f"try: syncdiff-prep lrs2 {lrs2 / 'mvlrs_v1'}$"):
        read_layout("lrs2", lrs2 / "mvlrs_v1/main")


def test_problems_do_not_make_a_layout(tmp_path: Path) -> None:
    (tmp_path / "gone.mpg").symlink_to("nowhere")
    with pytest.raises(LayoutError, match="does not look like grid"):
        read_layout("grid", tmp_path)
    assert reasons(read_layout("folder", tmp_path)) == [("gone.mpg", "broken-symlink")]


def test_other_wrong_roots(tmp_path: Path) -> None:
    put(tmp_path, "x.zip", "y.mp4")
    with pytest.raises(LayoutError, match="archives must be unpacked"):
        read_layout("lrs2", tmp_path)
    with pytest.raises(LayoutError, match="is a file"):
        read_layout("folder", tmp_path / "y.mp4")
    with pytest.raises(LayoutError, match="no such folder"):
        read_layout("folder", tmp_path / "z")
    with pytest.raises(LayoutError, match="there are lrs2, lrs3"):
        read_layout("lrs4", tmp_path)


def test_listing_leaves_the_folder_as_it_is(lrs2: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in lrs2.rglob("*")}
    read_layout("lrs2", lrs2)
    assert {path: path.stat().st_mtime_ns for path in lrs2.rglob("*")} == before
