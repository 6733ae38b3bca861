"""LRS texts and GRID alignments, whole, partly missing and broken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncdiff.pipeline.datasets.listing import read_layout
from syncdiff.pipeline.datasets.transcripts import grid_sentence, parse_grid_align, parse_lrs_text, with_text
from syncdiff.pipeline.records import Clip, Word

LRS3 = "Text:  HELLO WORLD\nConf:  3\n\nWORD START END ASDSCORE\nHELLO 0.10 0.42 5.1\nWORLD 0.50 0.98 7.0\n"
WORDS = (Word("HELLO", 0.10, 0.42), Word("WORLD", 0.50, 0.98))


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_lrs_text(ends: str) -> None:
    assert parse_lrs_text(LRS3.replace("\n", ends)) == ("HELLO WORLD", WORDS)
    assert parse_lrs_text(f"Text:  HELLO{ends}Conf: 4{ends}") == ("HELLO", None)


@pytest.mark.parametrize("text", ["", "\x00\x01", "Text:", "WORD START END\n"])
def test_lrs_text_without_words(text: str) -> None:
    assert parse_lrs_text(text) == (None, None)


@pytest.mark.parametrize("row", ["HELLO 0.1", "HELLO x 0.4", "HELLO 0.5 0.4", "HELLO nan 1", "HELLO -1 1"])
def test_a_bad_word_row_drops_the_table(row: str) -> None:
    assert parse_lrs_text(f"Text: HI\nWORD START END ASDSCORE\n{row}\nA 1 2 3\n") == ("HI", None)


def test_grid_align(realdata: Path) -> None:
    words = parse_grid_align((realdata / "grid_s2_swwp2s.align").read_text())
    assert words is not None
    assert [word.word for word in words] == ["set", "white", "with", "p", "two", "soon"]
    assert (words[0].start_s, words[0].end_s) == pytest.approx((0.49, 0.77))


def test_grid_align_by_hand() -> None:
    assert parse_grid_align("0 25000 sil\n25000 50000 bin\n50000 62500 sp\n") == (Word("bin", 1.0, 2.0),)
    assert parse_grid_align("0 1 2 3\n") is None
    assert parse_grid_align("5 1 bin\n") is None


def test_grid_sentence() -> None:
    assert grid_sentence("bbaf2n") == "bin blue at f two now"
    assert grid_sentence("PWIZZP") == "place white in z zero please"
    assert grid_sentence("bbaw2n") is None
    assert grid_sentence("other") is None


@pytest.mark.parametrize(
    "place", ["s1/align", "s1/video", "align", "align/s1", "alignments/s1", "alignments/s1/align"]
)
def test_grid_alignment_wherever_it_lies(tmp_path: Path, place: str) -> None:
    for folder in ("s1/video", place):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "s1/video/bbaf2n.mpg").touch()
    (tmp_path / place / "bbaf2n.align").write_text("0 25000 sil\n25000 50000 bin\n")
    clip = with_text("grid", tmp_path, read_layout("grid", tmp_path).clips[0])
    assert (clip.transcript, clip.words) == ("bin", (Word("bin", 1.0, 2.0),))


def test_texts_that_are_missing_or_odd(tmp_path: Path) -> None:
    clip = Clip("lrs2/train/a/1", tmp_path / "1.mp4", "1.mp4", "train")
    assert with_text("lrs2", tmp_path, clip) == clip
    (tmp_path / "1.txt").write_bytes(b"\xef\xbb\xbfText:  CAF\xff\n")
    assert with_text("lrs2", tmp_path, clip).transcript == "CAF�"
    assert with_text("folder", tmp_path, clip) == clip
    (tmp_path / "1.txt").unlink()
    os.mkfifo(tmp_path / "1.txt")
    assert with_text("lrs3", tmp_path, clip) == clip
    assert with_text("grid", tmp_path, Clip("i", tmp_path / "bbaf2n.mpg", "s", "train")).words is None
