"""Which clips belong to one speaker or source video: intervals are drawn over those, not over clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import dirname

from syncdiff.evaluate.pairing.methods import MatchError, clip_name
from syncdiff.evaluate.pairing.pair_lists import ListLine, split_fields
from syncdiff.evaluate.records import Case

BY_CLIP, BY_FOLDER = "clip", "folder"


@dataclass(frozen=True)
class Groups:
    """Clip -> its group, and what a group is ("speaker"); empty where clips stand for themselves."""

    of: Mapping[str, str] = field(default_factory=dict)
    unit: str = BY_CLIP


def find_groups(
    cases: Sequence[Case],
    wanted: str | None,
    *,
    references: Mapping[str, Path],
    stored: Groups,
    pairs: Sequence[ListLine],
) -> Groups:
    """The groups of all clips: those wanted, or else the first of these that is known.

    - stored: a data set's speakers, by reference;
    - pairs: of a pairs list the picture clips, or their folders where all have one;
    - the folders of the clips' names, where all have one and there are several, as the source videos of LRS
      and VoxCeleb and the speakers of GRID are.

    wanted: "clip", "folder", or a file of lines `clip, group`. Raises MatchError for a file that cannot be
    read, or does not name every clip.
    """
    clips = list(dict.fromkeys(case.clip for case in cases))
    if wanted == BY_CLIP:
        return Groups()
    if wanted is not None and wanted != BY_FOLDER:
        return Groups(_read_groups(Path(wanted), clips), "group")
    if wanted is None:
        names = {path: name for name, path in references.items()}
        speakers = {
            case.clip: stored.of[names[case.reference]]
            for case in cases
            if case.reference in names and names[case.reference] in stored.of
        }
        if len(speakers) == len(clips):
            return Groups(speakers, stored.unit)
        pictures = {line.clip: clip_name(line.picture) for line in pairs if line.picture}
        if pictures and all(clip in pictures for clip in clips):
            own = {clip: pictures[clip] for clip in clips}
            return _folders(own) or Groups(own, "source video")
    return _folders({clip: clip for clip in clips}) or Groups()


def _folders(names: Mapping[str, str]) -> Groups | None:
    """Clip -> the folder of its name; None where one has none, or all have the same."""
    folders = {clip: dirname(name) for clip, name in names.items()}
    in_folders = all(folders.values()) and len(set(folders.values())) > 1
    return Groups(folders, BY_FOLDER) if in_folders else None


def _read_groups(path: Path, clips: Sequence[str]) -> dict[str, str]:
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MatchError(f"--groups: {path}: {error}; or say clip or folder") from error
    groups: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        fields = split_fields(line)
        if not fields:
            continue
        if len(fields) != 2 or not all(fields):
            raise MatchError(f"{path}:{number}: expected 'clip, group', got {line!r}")
        groups[clip_name(fields[0])] = fields[1]
    missing = [clip for clip in clips if clip not in groups]
    if missing:
        raise MatchError(
            f"{path} names no group for {len(missing)} of {len(clips)} clips, such as {missing[0]}"
        )
    return {clip: groups[clip] for clip in clips}
