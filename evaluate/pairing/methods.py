"""Which methods a results folder holds, and their videos by name.

A clip's name is its path below the method's folder, without suffix. Several RESULTS are a method each. One
RESULTS is one method, or holds several as sub-folders:

- Where it is known which clips there should be (by references, or a list): sub-folders are methods when more
  videos are among these clips by their path below the sub-folder than by their path below RESULTS.
- Else: when there are two sub-folders or more, no video lies outside them, and each holds at least half of
  all the names that occur. (Speakers' folders seldom do.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import splitext

from syncdiff.evaluate.records import Unmatched
from syncdiff.pipeline.datasets.clip_ids import escape_path
from syncdiff.pipeline.datasets.find_videos import VIDEO_SUFFIXES, find_videos, is_video_name

MIN_SHARED_NAMES = 0.5


class MatchError(Exception):
    """Results, references or a list that cannot be used as they are; the message says what to change."""


class NothingFoundError(Exception):
    """There is nothing to score; the message says what was looked for, and where."""


@dataclass(frozen=True)
class Method:
    """A method and its videos by clip name."""

    name: str
    videos: Mapping[str, Path]


@dataclass(frozen=True)
class FoundMethods:
    """All methods, files that cannot be read by their kind, and what a person should know."""

    methods: tuple[Method, ...]
    problems: tuple[Unmatched, ...]
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Listed:
    """A folder's videos by name, and what was left out of it."""

    videos: dict[str, Path]
    problems: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def clip_name(path: str) -> str:
    """A path below a folder as a clip's name: without a video's suffix, as text."""
    return escape_path(splitext(path)[0] if is_video_name(path) else path)


def list_videos(folder: Path, *, leave_out: Path | None = None) -> Listed:
    """The videos under a folder, or the one video that the path is.

    leave_out: a folder (of our own output) that is passed over. Raises MatchError where the path does not
    exist, and where two files would have the same name.
    """
    if folder.is_file():
        return Listed({clip_name(folder.name): folder}, (), ())
    if not folder.is_dir():
        raise MatchError(f"{folder}: no such folder")
    walk = find_videos(folder)
    problems = [
        (escape_path(problem.relative), f"{problem.reason}: {problem.detail}") for problem in walk.problems
    ]
    videos: dict[str, Path] = {}
    own = 0
    for relative in walk.videos:
        path = folder / relative
        if leave_out is not None and _inside(path, leave_out):
            own += 1
            continue
        name = clip_name(relative)
        if name in videos:
            raise MatchError(f"two files have the same name, {name}: {videos[name]} and {path}; remove one")
        videos[name] = path
    notes = [f"{folder}: {note}" for note in walk.notes]
    if own:
        notes.append(f"{folder}: left out {own} videos in the output folder {leave_out}")
    return Listed(videos, tuple(problems), tuple(notes))


def find_results(
    folders: Sequence[Path],
    expected: Callable[[str], bool] | None = None,
    *,
    sub_folders: bool | None = None,
    leave_out: Path | None = None,
) -> FoundMethods:
    """The methods in these folders, by the rule above; `sub_folders` decides it for a single folder.

    expected: whether results should have a clip of this name; None where nothing says so. Raises MatchError
    as `list_videos` does, and NothingFoundError where there is no video.
    """
    listed = [list_videos(folder, leave_out=leave_out) for folder in folders]
    if not any(listing.videos for listing in listed):
        raise NothingFoundError(_nothing(folders, listed))
    notes = tuple(note for listing in listed for note in listing.notes)
    if len(folders) > 1:
        names = method_names(folders)
        methods = tuple(Method(n, listing.videos) for n, listing in zip(names, listed, strict=True))
    else:
        methods, note = _of_one(folders[0], listed[0].videos, expected, sub_folders)
        notes += (note,) if note else ()
    problems = tuple(
        Unmatched("generated", None, f"{folder}/{name}", reason)
        for folder, listing in zip(folders, listed, strict=True)
        for name, reason in listing.problems
    )
    return FoundMethods(methods, problems, notes)


def method_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart. Raises MatchError for a folder given twice."""
    real = [folder.resolve() for folder in folders]
    if len(set(real)) < len(real):
        twice = next(folder for folder in folders if real.count(folder.resolve()) > 1)
        raise MatchError(f"{twice} is given twice")
    count = 1
    while len({path.parts[-count:] for path in real}) < len(real):
        count += 1
    return [escape_path("/".join(path.parts[-count:])) for path in real]


def _of_one(
    folder: Path, videos: Mapping[str, Path], expected: Callable[[str], bool] | None, sub_folders: bool | None
) -> tuple[tuple[Method, ...], str]:
    """The methods in one folder, and a sentence on how they were told apart."""
    grouped: dict[str, dict[str, Path]] = {}
    for name, path in videos.items():
        first, below, rest = name.partition("/")
        grouped.setdefault(first if below else "", {})[rest or first] = path
    nested = _are_methods(videos, grouped, expected) if sub_folders is None else sub_folders
    if nested and "" in grouped:
        loose = ", ".join(sorted(grouped[""])[:3])
        raise MatchError(f"{folder}: its sub-folders are methods, but videos lie beside them: {loose}")
    if nested:
        names = sorted(grouped)
        note = f"methods are the sub-folders of {folder}: {', '.join(names)}"
        methods = tuple(Method(name, grouped[name]) for name in names)
    else:
        (name,) = method_names([folder.with_suffix("") if folder.is_file() else folder])
        note = f"{folder} is one method, its sub-folders parts of it" if len(grouped) > 1 else ""
        methods = (Method(name, videos),)
    if note and sub_folders is None:
        note += " (--one-method and --sub-folders say otherwise)"
    return methods, note


def _are_methods(
    videos: Mapping[str, Path],
    grouped: Mapping[str, Mapping[str, Path]],
    expected: Callable[[str], bool] | None,
) -> bool:
    if expected is not None:
        below = sum(expected(name) for group, own in grouped.items() if group for name in own)
        return below > sum(map(expected, videos))
    names = {name for own in grouped.values() for name in own}
    if "" in grouped or len(grouped) < 2:
        return False
    return all(len(own) >= MIN_SHARED_NAMES * len(names) for own in grouped.values())


def _inside(path: Path, folder: Path) -> bool:
    return os.path.commonpath([path.resolve(), folder.resolve()]) == str(folder.resolve())


def _nothing(folders: Sequence[Path], listed: Sequence[Listed]) -> str:
    suffixes = " ".join(sorted(VIDEO_SUFFIXES))
    lines = [f"no videos in {', '.join(map(str, folders))}; looked below for files ending in {suffixes}"]
    lines += [f"  {name}: {reason}" for listing in listed for name, reason in listing.problems]
    lines += [f"  {note}" for listing in listed for note in listing.notes]
    return "\n".join(lines)
