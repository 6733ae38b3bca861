"""Which result belongs to which reference: by name, by list, by the way pairs are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from syncdiff.evaluate.pairing.match import Matched, folder_references, match
from syncdiff.evaluate.pairing.methods import MatchError, NothingFoundError
from syncdiff.evaluate.pairing.pair_lists import joint_name, read_list
from syncdiff.evaluate.protocol import Protocol

PAIRED = Protocol(name="paired")
PICTURES = Protocol(name="pictures", reference="picture")
PAIRS = Protocol(name="pairs", reference="picture", lines="pairs")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """r/ours and r/other with results, real/ with references; files are empty, matching opens none."""
    for name in (
        "r/ours/s1/a.mp4",
        "r/ours/s1/b.mp4",
        "r/other/s1/a.avi",
        "real/s1/a.mpg",
        "real/s1/b.mpg",
        "real/s2/c.mpg",
        "real/s1/a.wav",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def matched(tree: Path, protocol: Protocol = PAIRED, text: str | None = None, **options: Any) -> Matched:
    """Match r/ against real/, or with this list."""
    references = folder_references(tree / "real") if options.pop("referenced", True) else None
    listed = None
    if text is not None:
        listed = tree / "list.txt"
        listed.write_text(text)
    return match([options.pop("results", tree / "r")], protocol, references, listed, **options)


def rows(found: Matched, root: Path) -> list[tuple[str, str, str | None, str]]:
    """(method, clip, reference, sound) with paths below the root."""
    return [
        (
            case.method,
            case.clip,
            case.reference and case.reference.relative_to(root).as_posix(),
            case.sound.relative_to(root).as_posix(),
        )
        for case in found.cases
    ]


def complaints(found: Matched) -> set[tuple[str, str | None, str]]:
    return {(one.side, one.method, one.name) for one in found.unmatched}


def test_by_name_whatever_the_suffix(tree: Path) -> None:
    found = matched(tree)
    assert found.methods == ("other", "ours")
    assert rows(found, tree) == [
        ("other", "s1/a", "real/s1/a.mpg", "r/other/s1/a.avi"),
        ("ours", "s1/a", "real/s1/a.mpg", "r/ours/s1/a.mp4"),
        ("ours", "s1/b", "real/s1/b.mpg", "r/ours/s1/b.mp4"),
    ]


def test_what_has_no_partner_is_listed_on_either_side(tree: Path) -> None:
    (tree / "r/ours/s1/extra.mp4").touch()
    assert complaints(matched(tree)) == {
        ("generated", "ours", "s1/extra"),
        ("reference", "other", "s1/b"),
        ("reference", "other", "s2/c"),
        ("reference", "ours", "s2/c"),
    }


def test_without_references_clips_that_only_others_have_are_missing(tree: Path) -> None:
    found = matched(tree, referenced=False)
    assert [(case.method, case.clip, case.reference) for case in found.cases] == [
        ("other", "s1/a", None),
        ("ours", "s1/a", None),
        ("ours", "s1/b", None),
    ]
    assert complaints(found) == {("reference", "other", "s1/b")}


def test_no_partner_at_all_shows_names_of_both_sides(tree: Path) -> None:
    with pytest.raises(NothingFoundError) as caught:
        match([tree / "r/ours/s1"], PAIRED, folder_references(tree / "real"))
    assert "example: a, b" in str(caught.value) and "example: s1/a, s1/b, s2/c" in str(caught.value)


def test_an_empty_reference_folder_is_said_to_be_empty(tree: Path) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(NothingFoundError, match=r"no videos in .*empty"):
        folder_references(tree / "empty")


def test_two_references_of_one_name_are_both_named(tree: Path) -> None:
    (tree / "real/s1/a.mp4").touch()
    with pytest.raises(MatchError, match=r"a\.mp4 and .*a\.mpg|a\.mpg and .*a\.mp4"):
        matched(tree)


def test_one_file_and_one_reference_file_belong_together(tree: Path) -> None:
    references = folder_references(tree / "real/s1/b.mpg")
    found = match([tree / "r/ours/s1/a.mp4"], PAIRED, references)
    assert rows(found, tree) == [("a", "a", "real/s1/b.mpg", "r/ours/s1/a.mp4")]
    assert not found.unmatched


@pytest.mark.parametrize("separator", [" ", "\t", ", ", ","])
def test_a_list_says_what_belongs_together(tree: Path, separator: str) -> None:
    lines = [["s1/a", "s2/c.mpg"], ["s1/b.mp4", "s1/a", "s1/a.wav"]]
    text = "# remark\n\n" + "\n".join(separator.join(line) for line in lines)
    found = matched(tree, text=text, results=tree / "r/ours")
    assert rows(found, tree) == [
        ("ours", "s1/a", "real/s2/c.mpg", "r/ours/s1/a.mp4"),
        ("ours", "s1/b", "real/s1/a.mpg", "real/s1/a.wav"),
    ]
    assert not found.unmatched


def test_a_list_with_a_head_and_names_with_commas(tree: Path) -> None:
    (tree / "r/ours/s1/a.mp4").rename(tree / "r/ours/s1/a,b c.mp4")
    text = 'generated,reference\n"s1/a,b c.mp4",s1/a\n'
    found = matched(tree, text=text, results=tree / "r/ours")
    assert [case.clip for case in found.cases] == ["s1/a,b c"]
    assert complaints(found) == {("generated", "ours", "s1/b")}


def test_a_list_of_names_alone_takes_references_by_name(tree: Path) -> None:
    found = matched(tree, text="s1/a\ns2/c\n")
    assert [(case.method, case.clip) for case in found.cases] == [("other", "s1/a"), ("ours", "s1/a")]
    assert complaints(found) == {
        ("list", "ours", "s2/c"),
        ("list", "other", "s2/c"),
        ("generated", "ours", "s1/b"),
    }


def test_remarks_behind_names_are_no_references(tree: Path) -> None:
    found = matched(tree, text="s1/a NF\ns1/b MV\n", results=tree / "r/ours")
    assert [case.clip for case in found.cases] == ["s1/a", "s1/b"]
    assert any("MV, NF" in note for note in found.notes)


def test_paths_in_a_list_may_begin_at_the_list_itself(tree: Path) -> None:
    text = f"r/ours/s1/a.mp4, real/s1/b.mpg\n{tree}/r/ours/s1/b.mp4, {tree}/real/s1/a.mpg\n"
    found = matched(tree, text=text, results=tree / "r/ours", referenced=False)
    assert rows(found, tree) == [
        ("ours", "s1/a", "real/s1/b.mpg", "r/ours/s1/a.mp4"),
        ("ours", "s1/b", "real/s1/a.mpg", "r/ours/s1/b.mp4"),
    ]


def test_what_a_list_names_in_vain_is_listed(tree: Path) -> None:
    (tree / "r/ours/s1/d.mp4").touch()
    text = "s1/a, s9/none\ns1/d, s1/b, s9/none.wav\ns1/b, s1/b\ns1/b, s2/c\n"
    found = matched(tree, text=text, results=tree / "r/ours")
    assert rows(found, tree) == [("ours", "s1/b", "real/s1/b.mpg", "r/ours/s1/b.mp4")]
    assert {one.reason.split(" in /")[0] for one in found.unmatched} == {
        "line 1: no reference s9/none",
        "line 2: no sound s9/none.wav",
        "line 4: the same as line 3",
    }


@pytest.mark.parametrize(
    ("text", "protocol", "message"),
    [
        ("a b c d", PAIRED, r"list.txt:1: expected 'generated, reference\[, sound\]', got 'a b c d'"),
        ("a b c", PAIRS, "expected '<sound clip> <picture clip>'"),
        ("a", PAIRS, "expected '<sound clip> <picture clip>'"),
        (",b", PAIRED, "list.txt:1"),
    ],
)
def test_lines_of_another_form_are_refused(
    tmp_path: Path, text: str, protocol: Protocol, message: str
) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(MatchError, match=message):
        read_list(tmp_path / "list.txt", protocol.lines)


def test_a_list_that_is_empty_or_absent(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(NothingFoundError, match="the list is empty"):
        read_list(tmp_path / "list.txt", "files")
    with pytest.raises(MatchError, match=r"none\.txt"):
        read_list(tmp_path / "none.txt", "files")


def test_pairs_are_found_by_the_names_that_syncdiff_generate_gives(tree: Path) -> None:
    names = ["s1/a__s2_c", "s2/c__s1_b", "s1/b"]
    for name in names:
        path = tree / "cross" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = matched(tree, PICTURES, results=tree / "cross")
    assert [(case.clip, case.reference and case.reference.name) for case in found.cases] == [
        ("s1/a__s2_c", "a.mpg"),
        ("s1/b", "b.mpg"),
        ("s2/c__s1_b", "c.mpg"),
    ]
    assert all(case.sound == case.generated for case in found.cases)


def test_a_pairs_list_by_names_or_by_line_numbers(tree: Path) -> None:
    for name in ("joint/s1/a__s2_c", "joint/s2/c__s1_b", "numbers/0", "numbers/1", "numbers/7"):
        path = tree / "u" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    text = "s2/c s1/a\ns1/b.mp4 s2/c.mp4\n"
    found = matched(tree, PAIRS, text=text, results=tree / "u", referenced=False)
    assert rows(found, tree) == [
        ("joint", "s1/a__s2_c", None, "u/joint/s1/a__s2_c.mp4"),
        ("joint", "s2/c__s1_b", None, "u/joint/s2/c__s1_b.mp4"),
        ("numbers", "s1/a__s2_c", None, "u/numbers/0.mp4"),
        ("numbers", "s2/c__s1_b", None, "u/numbers/1.mp4"),
    ]
    assert complaints(found) == {("generated", "numbers", "7")}
    with_pictures = matched(tree, PAIRS, text=text, results=tree / "u/numbers")
    assert [case.reference and case.reference.name for case in with_pictures.cases] == ["a.mpg", "c.mpg"]


def test_the_sound_may_be_the_references(tree: Path) -> None:
    found = matched(tree, Protocol(sound="reference"), results=tree / "r/ours")
    assert [case.sound.name for case in found.cases] == ["a.mpg", "b.mpg"]
    listed = matched(tree, Protocol(sound="reference"), text="s1/a, s1/b", results=tree / "r/ours")
    assert [case.sound.name for case in listed.cases] == ["b.mpg"]
    (tree / "cross/s1").mkdir(parents=True)
    (tree / "cross/s1/a__s2_c.mp4").touch()
    (tree / "cross/s1/a__s9_none.mp4").touch()
    cross = matched(tree, Protocol(reference="picture", sound="reference"), results=tree / "cross")
    assert [(case.clip, case.sound.name) for case in cross.cases] == [("s1/a__s2_c", "c.mpg")]
    assert ("generated", "cross", "s1/a__s9_none") in complaints(cross)
    with pytest.raises(MatchError, match="sound is to come from the references"):
        matched(tree, Protocol(sound="reference"), referenced=False)


def test_joint_names_are_those_of_syncdiff_generate() -> None:
    assert joint_name("s1/a", "s2/c") == "s1/a__s2_c"
    assert joint_name("s1/a", "s1/a") == "s1/a"
