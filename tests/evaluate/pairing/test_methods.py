"""Telling methods from sub-folders, and names from files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from syncdiff.evaluate.pairing.methods import (
    MatchError,
    NothingFoundError,
    clip_name,
    find_results,
    list_videos,
    method_names,
)


def touch(root: Path, *names: str) -> Path:
    """Empty files; finding them opens none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(root: Path, known: Iterable[str] | None = None, **options: bool) -> dict[str, list[str]]:
    found = find_results([root], None if known is None else set(known).__contains__, **options)
    return {method.name: sorted(method.videos) for method in found.methods}


def test_a_flat_and_a_nested_folder_are_one_method(tmp_path: Path) -> None:
    flat = touch(tmp_path / "flat", "a.mp4", "b.avi", "notes.txt")
    assert names(flat) == {"flat": ["a", "b"]}
    nested = touch(tmp_path / "lrs", "6330/00001.mp4", "6330/00002.mp4", "6331/00005.mp4")
    assert names(nested) == {"lrs": ["6330/00001", "6330/00002", "6331/00005"]}


def test_references_decide_what_sub_folders_are(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "x/a.mp4", "x/b.mp4", "y/a.mp4")
    assert names(root, known=["a", "b"]) == {"x": ["a", "b"], "y": ["a"]}
    assert names(root, known=["x/a", "x/b", "y/a"]) == {"r": ["x/a", "x/b", "y/a"]}


def test_methods_may_be_nested_too(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "ours/s1/a.mp4", "ours/s2/a.mp4", "wav2lip/s1/a.mp4")
    assert names(root, known=["s1/a", "s2/a"]) == {"ours": ["s1/a", "s2/a"], "wav2lip": ["s1/a"]}


def test_without_references_equal_names_in_sub_folders_make_methods(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "x/a.mp4", "x/b.mp4", "y/a.avi", "y/b.avi", "z/b.mp4")
    assert names(root) == {"x": ["a", "b"], "y": ["a", "b"], "z": ["b"]}
    assert names(root, sub_folders=False)["r"] == ["x/a", "x/b", "y/a", "y/b", "z/b"]


def test_speakers_with_few_equal_names_are_no_methods(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", *(f"s{k}/{k}{i}.mp4" for k in range(3) for i in range(3)), "s1/00.mp4")
    assert list(names(root)) == ["r"]
    assert list(names(root, sub_folders=True)) == ["s0", "s1", "s2"]


def test_what_was_decided_is_said(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "x/a.mp4", "y/a.mp4")
    assert "sub-folders of" in find_results([root]).notes[0]
    assert find_results([root], sub_folders=True).notes[0].endswith("x, y")


def test_videos_beside_methods_are_refused(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "x/a.mp4", "y/a.mp4", "loose.mp4")
    with pytest.raises(MatchError, match="videos lie beside them: loose"):
        names(root, known=["a"])


def test_several_folders_are_a_method_each_with_names_that_differ(tmp_path: Path) -> None:
    one, two = touch(tmp_path / "one" / "out", "a.mp4"), touch(tmp_path / "two" / "out", "a.mp4")
    found = find_results([one, two])
    assert [method.name for method in found.methods] == ["one/out", "two/out"]
    with pytest.raises(MatchError, match="is given twice"):
        method_names([one, one.parent / "." / "out"])


def test_one_file_is_a_method_of_one_clip(tmp_path: Path) -> None:
    root = touch(tmp_path, "ours.mp4")
    assert names(root / "ours.mp4") == {"ours": ["ours"]}


def test_two_files_of_one_name_are_both_named(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "s/a.mp4", "s/a.avi")
    with pytest.raises(MatchError) as caught:
        list_videos(root)
    assert str(root / "s/a.mp4") in str(caught.value) and str(root / "s/a.avi") in str(caught.value)


def test_no_video_at_all_says_what_was_looked_for(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "a.txt", ".hidden/a.mp4")
    with pytest.raises(NothingFoundError, match=r"no videos in .*r; looked .*\.mp4") as caught:
        find_results([root])
    assert "hidden folders" in str(caught.value)
    with pytest.raises(MatchError, match="no such folder"):
        find_results([tmp_path / "absent"])


def test_what_cannot_be_a_video_is_listed(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "a.mp4")
    (root / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    found = find_results([root])
    assert [one.reason.split(":")[0] for one in found.problems] == ["broken-symlink"]


def test_the_output_folder_is_not_taken_for_results(tmp_path: Path) -> None:
    root = touch(tmp_path / "r", "a.mp4", "eval/references/a.mkv")
    found = find_results([root], leave_out=root / "eval")
    assert list(found.methods[0].videos) == ["a"]
    assert any("left out 1 videos" in note for note in found.notes)


def test_clip_names_lose_only_a_videos_suffix() -> None:
    assert [clip_name(n) for n in ("s/a.mp4", "s/a.v2", "a.b.AVI")] == ["s/a", "s/a.v2", "a.b"]
    assert clip_name("caf\udce9.mp4") == "caf%E9"
