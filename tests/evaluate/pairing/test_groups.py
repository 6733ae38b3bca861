"""What intervals are drawn over."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncdiff.evaluate.pairing.groups import Groups, find_groups
from syncdiff.evaluate.pairing.methods import MatchError
from syncdiff.evaluate.pairing.pair_lists import ListLine, read_list
from syncdiff.evaluate.records import Case

NAMES = ("s1/a", "s1/b", "s2/c")


def grouped(
    names: tuple[str, ...] = NAMES, wanted: str | None = None, *, speakers: Groups | None = None,
    pairs: list[ListLine] | None = None,
) -> Groups:  # fmt: skip
    references = {name: Path(f"/ref/{name}.mp4") for name in names}
    cases = [Case("ours", name, Path(name), references[name], Path(name)) for name in names]
    return find_groups(cases, wanted, references=references, stored=speakers or Groups(), pairs=pairs or ())


def test_folders_of_names() -> None:
    assert grouped() == Groups({"s1/a": "s1", "s1/b": "s1", "s2/c": "s2"}, "folder")
    assert grouped(("s1/a", "b")) == grouped(("s/a", "s/b")) == grouped(wanted="clip") == Groups()


def test_a_data_sets_speakers_come_first() -> None:
    speakers = Groups(dict.fromkeys(NAMES[:2], "Ann") | {"s2/c": "Bob"}, "speaker")
    assert grouped(speakers=speakers) == speakers
    assert grouped(speakers=speakers, wanted="folder").unit == "folder"


def test_a_pairs_list_names_the_pictures(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("x p\ny p\nx q\n")
    lines = read_list(tmp_path / "pairs.txt", "pairs")
    found = grouped(tuple(line.clip for line in lines), pairs=lines)
    assert found == Groups({"p__x": "p", "p__y": "p", "q__x": "q"}, "source video")
    (tmp_path / "pairs.txt").write_text("a/x v/p\na/y v/q\na/x w/q\n")
    lines = read_list(tmp_path / "pairs.txt", "pairs")
    assert sorted(grouped(tuple(line.clip for line in lines), pairs=lines).of.values()) == ["v", "v", "w"]


def test_a_file_of_groups(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text("# clip, speaker\ns1/a.mp4, Ann\ns1/b, Ann\ns2/c, Bob\nother, Eve\n")
    assert grouped(wanted=str(path)) == Groups({"s1/a": "Ann", "s1/b": "Ann", "s2/c": "Bob"}, "group")


@pytest.mark.parametrize(
    ("text", "message"),
    [("s1/a, Ann\n", "no group for 2 of 3 clips"), ("s1/a\n", ":1: expected"), (None, "--groups")],
)
def test_a_file_that_does_not_do(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "groups.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(MatchError, match=message):
        grouped(wanted=str(path))
