"""What the readers of the layouts share: the record they fill in, and a few questions about folders."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from syncdiff.pipeline.datasets.find_videos import Problem, find_videos


class LayoutError(Exception):
    """The folder cannot be read as the layout asked for; the message says why and what would work."""


class SplitVideo(NamedTuple):
    """A video: its split, its path in the split's folder, and its path from the root."""

    split: str
    name: str
    relative: str
    speaker: str | None


class SplitProblem(NamedTuple):
    """What cannot be a clip: its split, its path in the split's folder, and what is wrong with it."""

    split: str
    name: str
    problem: Problem


@dataclass
class LayoutScan:
    """What a reader gathers at `root`, for the splits in `wanted` (None: all).

    splits: those that this copy has. Paths of problems are counted from the root.
    """

    root: Path
    wanted: Collection[str] | None = None
    splits: set[str] = field(default_factory=set)
    files: list[SplitVideo] = field(default_factory=list)
    problems: list[SplitProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def wants(self, split: str) -> bool:
        """Takes down that the data set has this split; True when it is asked for."""
        self.splits.add(split)
        return self.wanted is None or split in self.wanted

    def walk(self, folder: str, split: str) -> tuple[str, ...]:
        """Videos under a folder of the root, relative to that folder; takes down its problems and notes."""
        walk = find_videos(self.root / folder)
        for problem in walk.problems:
            from_root = replace(problem, relative=join(folder, problem.relative))
            self.problems.append(SplitProblem(split, problem.relative, from_root))
        self.notes += [f"{folder}: {note}" if folder else note for note in walk.notes]
        return walk.videos

    def add(self, split: str, folder: str, videos: Collection[str]) -> None:
        """Takes down videos of a folder whose first sub-folders are speakers."""
        self.files += [SplitVideo(split, name, join(folder, name), first_folder(name)) for name in videos]


def join(*parts: str) -> str:
    """Relative path of the parts that are not empty, with forward slashes."""
    return "/".join(part for part in parts if part)


def first_folder(path: str) -> str | None:
    """The first folder of a relative path, None for a bare file name."""
    folder, slash, _ = path.partition("/")
    return folder if slash else None


def sub_folders(folder: Path, pattern: str = "*") -> list[str]:
    """Sorted names of the folders in `folder` that match `pattern` in lower case; none if it is closed."""
    try:
        with os.scandir(folder) as scan:
            names = [entry.name for entry in scan if not entry.name.startswith(".") and _is_folder(entry)]
    except OSError:
        return []
    return sorted(name for name in names if fnmatchcase(name.lower(), pattern))


def only_folder(folder: Path) -> list[str]:
    """The single folder in `folder`, as unpacking an archive leaves it; empty when there are more or none."""
    names = sub_folders(folder)
    return names if len(names) == 1 else []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
