"""Lists of what belongs together, in lines separated by tabs, commas or blanks; `#` begins a comment line.

What a line holds is stated by the protocol:

- files: `generated, reference[, sound]`, or the generated name alone;
- pairs: `<sound clip> <picture clip>`, as in Wav2Lip's lists. The result is named `<picture>__<sound>` with
  `/` in the sound's name as `_`, as `syncdiff-generate` names it, or by the line's number from 0, as
  Wav2Lip's evaluation/gen_videos_from_filelist.py does.
"""

from __future__ import annotations

import csv
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from syncdiff.evaluate.pairing.methods import MatchError, NothingFoundError, clip_name

JOINT = "__"
_FORMS = {"files": "generated, reference[, sound]", "pairs": "<sound clip> <picture clip>"}


@dataclass(frozen=True)
class ListLine:
    """A line of a list. place: "line 3". names: what the result may be called. Names are as written.

    picture: of a pairs list the clip that the picture is taken from, whether or not it is a reference.
    """

    place: str
    names: tuple[str, ...]
    reference: str | None
    sound: str | None
    picture: str | None = None

    @property
    def clip(self) -> str:
        """The clip's name, whatever the result is called."""
        return clip_name(self.names[0])


def joint_name(picture: str, sound: str) -> str:
    """How `syncdiff-generate` names the result of a pair."""
    return picture if picture == sound else f"{picture}{JOINT}{sound.replace('/', '_')}"


def read_list(path: Path, form: Literal["files", "pairs"]) -> list[ListLine]:
    """The lines of a list. Raises MatchError naming the line, NothingFoundError for an empty list."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MatchError(f"{path}: {error}") from error
    lines = []
    for index, line in enumerate(text.splitlines()):
        fields = split_fields(line)
        if not fields or (index == 0 and fields[0].lower() == "generated"):
            continue
        counts = (2,) if form == "pairs" else (1, 2, 3)
        if len(fields) not in counts or not fields[0] or (form == "pairs" and not fields[1]):
            raise MatchError(f"{path}:{index + 1}: expected '{_FORMS[form]}', got {line!r}")
        lines.append(_line(index, fields, form))
    if not lines:
        raise NothingFoundError(f"{path}: the list is empty")
    return lines


def without_annotations(
    lines: Sequence[ListLine], references: Container[str]
) -> tuple[list[ListLine], str | None]:
    """Lines without second words that are remarks, as in LRS2's test.txt, and a sentence that says so.

    They are remarks when no line's second word names a reference, and the first word of some line does.
    """
    seconds = [line for line in lines if line.reference is not None]
    names_some = any(line.reference in references for line in seconds if line.reference)
    if not seconds or names_some or not any(line.names[0] in references for line in lines):
        return list(lines), None
    words = ", ".join(sorted({line.reference for line in seconds if line.reference})[:3])
    note = f"the list's second words ({words}) name no reference and are taken for remarks"
    return [replace(line, reference=None) for line in lines], note


def _line(index: int, fields: list[str], form: str) -> ListLine:
    place = f"line {index + 1}"
    if form == "pairs":
        sound, picture = (clip_name(name) for name in fields)
        return ListLine(place, (joint_name(picture, sound), str(index)), picture, sound, picture)
    reference, sound = (*fields[1:], "", "")[:2]
    return ListLine(place, (fields[0],), reference or None, sound or None)


def split_fields(line: str) -> list[str]:
    """The fields of a line, separated by tabs, commas or blanks; none of an empty line or a comment."""
    if not line.strip() or line.lstrip().startswith("#"):
        return []
    if "\t" in line:
        return [part.strip() for part in line.split("\t")]
    if "," in line:
        return [part.strip() for part in next(csv.reader([line], skipinitialspace=True))]
    return line.split()
