"""Reads what was said: LRS text files and GRID alignments, as they lie beside the clips."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from syncdiff.pipeline.records import Clip, Word

GRID_UNITS_PER_S = 25_000
"""GRID alignments count samples at 25 kHz (Cooke et al. 2006, "An audio-visual corpus ...", section II)."""

# GRID's six-word grammar, which its file names spell out: "bbaf2n" is "bin blue at f two now" (same paper).
_GRID_GRAMMAR = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},
    {"z": "zero", "1": "one", "2": "two", "3": "three", "4": "four"}
    | {"5": "five", "6": "six", "7": "seven", "8": "eight", "9": "nine"},
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
_LARGEST_TEXT_BYTES = 1 << 20  # an hour of speech has about 60 kB


def with_text(layout: str, root: Path, clip: Clip) -> Clip:
    """The clip with its transcript and word times, where its data set has them and the file is there.

    Read by whoever prepares the clip, not while listing: a million small files take their time to open.
    A missing text gives None; a word table with a line that makes no sense is left out as a whole.
    """
    if layout in ("lrs2", "lrs3"):
        text = read_text(clip.path.with_suffix(".txt"))
        transcript, words = parse_lrs_text(text) if text is not None else (None, None)
    elif layout == "grid":
        text = next(
            (text for place in _align_places(root, clip) if (text := read_text(place)) is not None), None
        )
        words = parse_grid_align(text) if text is not None else None
        transcript = " ".join(word.word for word in words) if words else grid_sentence(clip.path.stem)
    else:
        return clip
    return replace(clip, transcript=transcript, words=words)


def parse_lrs_text(text: str) -> tuple[str | None, tuple[Word, ...] | None]:
    """Transcript and words of an LRS text: a line `Text:  THE WORDS`, maybe a table `WORD START END ...`."""
    lines = text.splitlines()
    said = next(
        (match[1].strip() for line in lines if (match := re.match(r"\s*text:(.*)", line, re.I))), None
    )
    header = next(
        (i for i, line in enumerate(lines) if line.upper().split()[:3] == ["WORD", "START", "END"]), None
    )
    if header is None:
        return said or None, None
    rows = [line.split() for line in lines[header + 1 :] if line.strip()]
    return said or None, _words((row[1], row[2], row[0]) if len(row) >= 3 else None for row in rows)


def parse_grid_align(text: str) -> tuple[Word, ...] | None:
    """Words of a GRID alignment, lines `start end word` in 25 kHz units, without silences (`sil`, `sp`)."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    spoken = [row for row in rows if len(row) != 3 or row[2].lower() not in ("sil", "sp")]
    return _words(
        ((row[0], row[1], row[2]) if len(row) == 3 else None for row in spoken), 1 / GRID_UNITS_PER_S
    )


def grid_sentence(code: str) -> str | None:
    """The sentence a GRID file name stands for, None for another kind of name."""
    if len(code) != len(_GRID_GRAMMAR):
        return None
    words = [choice.get(letter) for choice, letter in zip(_GRID_GRAMMAR, code.lower(), strict=True)]
    return " ".join(word for word in words if word) if all(words) else None


def _words(rows: Iterator[tuple[str, str, str] | None], scale: float = 1.0) -> tuple[Word, ...] | None:
    """Words of rows (start, end, word); None where there are none or one makes no sense (None itself)."""
    words = []
    for row in rows:
        try:
            start, end, word = row or ("nan", "nan", "")
            start_s, end_s = float(start) * scale, float(end) * scale
        except ValueError:
            return None
        if not 0 <= start_s <= end_s < math.inf:
            return None
        words.append(Word(word, start_s, end_s))
    return tuple(words) or None


def _align_places(root: Path, clip: Clip) -> Iterator[Path]:
    """Where copies of GRID keep an alignment: beside the clip, in `align` above it, or in its own tree."""
    name = f"{clip.path.stem}.align"
    for folder in (clip.path.parent, *clip.path.parents[1:3]):
        yield folder / name
        yield folder / "align" / name
        if folder == root:
            break
    speaker = clip.speaker_id or ""
    for tree in ("align", "alignments", "aligns"):
        yield root / tree / speaker / name
        yield root / tree / speaker / "align" / name
    yield root / speaker / "align" / name


def read_text(path: Path) -> str | None:
    """The first MiB of a text file, None where there is none that can be read."""
    if not path.is_file():  # also keeps us from opening a pipe
        return None
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_TEXT_BYTES).decode("utf-8-sig", "replace")
    except OSError:
        return None
