"""The words belong to the sound that is heard, wherever the picture is from."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncdiff.evaluate.pairing.match import References, folder_references, match
from syncdiff.evaluate.pairing.transcripts import with_transcripts
from syncdiff.evaluate.protocol import Protocol, load_protocol


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Results and references; a transcript beside each reference."""
    results, references = tmp_path / "ours", tmp_path / "real"
    for speaker in ("s1", "s2"):
        (references / speaker).mkdir(parents=True)
        for clip in ("1", "2"):
            (references / speaker / f"{clip}.mp4").write_bytes(b"video")
            text = f"Text:  WORDS OF {speaker} {clip}\nConf: 3\n"
            (references / speaker / f"{clip}.txt").write_text(text)
    return results, references


def spoken(
    results: Path,
    names: list[str],
    protocol: Protocol,
    references: References | None,
    lines: str | None = None,
) -> dict[str, str | None]:
    for name in names:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / f"{name}.mp4").write_bytes(b"video")
    list_file = None
    if lines is not None:
        list_file = results.parent / "list.txt"
        list_file.write_text(lines)
    matched = match([results], protocol, references, list_file, sub_folders=False)
    found = with_transcripts(matched, protocol, references)
    assert len(found.cases) == len(names)
    return {case.clip: case.transcript for case in found.cases}


def test_a_reconstruction_says_the_words_of_its_reference(folders: tuple[Path, Path]) -> None:
    results, references = folders
    protocol = load_protocol("reconstruction")
    found = spoken(results, ["s1/1", "s2/2"], protocol, folder_references(references))
    assert found == {"s1/1": "WORDS OF s1 1", "s2/2": "WORDS OF s2 2"}


def test_a_crossed_clip_says_the_words_of_its_sound(folders: tuple[Path, Path]) -> None:
    results, references = folders
    names = ["s1/1__s2_2", "s1/2"]
    found = spoken(results, names, load_protocol("cross"), folder_references(references))
    assert found == {"s1/1__s2_2": "WORDS OF s2 2", "s1/2": "WORDS OF s1 2"}


@pytest.mark.parametrize("sound", ["generated", "reference"])
def test_a_pairs_list_says_whose_words_they_are(folders: tuple[Path, Path], sound: str) -> None:
    results, references = folders
    protocol = load_protocol("unsynced", sound=sound)
    found = spoken(results, ["0"], protocol, folder_references(references), "s2/2 s1/1\n")
    assert found == {"s1/1__s2_2": "WORDS OF s2 2"}


def test_a_text_beside_the_result_comes_first_and_needs_no_form(folders: tuple[Path, Path]) -> None:
    results, references = folders
    results.mkdir()
    (results / "a.txt").write_text("so be it\n")
    assert spoken(results, ["a"], load_protocol("reconstruction"), None) == {"a": "so be it"}
    (references / "s1" / "1.txt").unlink()
    (results / "a.mp4").unlink()
    found = spoken(results, ["s1/1"], load_protocol("reconstruction"), folder_references(references))
    assert found == {"s1/1": None}


def test_a_data_set_knows_the_words_of_its_rows(folders: tuple[Path, Path]) -> None:
    results, references = folders
    listed = folder_references(references)
    stored = References(listed.videos, "data", transcripts={listed.videos["s1/1"]: "FROM THE STORE"})
    found = spoken(results, ["s1/1", "s2/1"], load_protocol("reconstruction"), stored)
    assert found == {"s1/1": "FROM THE STORE", "s2/1": "WORDS OF s2 1"}
