"""Finds the videos under a folder: any case, links followed without loops, nothing lost silently."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from posixpath import splitext

_SUFFIXES = """3g2 3gp asf avi divx dv f4v flv m2ts m2v m4v mjpeg mjpg mkv mov mp4 mpe mpeg mpg mts mxf ogv qt
    rm rmvb ts vob webm wmv y4m"""
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _SUFFIXES.split())
_MOST_NOTES = 10


@dataclass(frozen=True)
class Problem:
    """Something that looks like an input and cannot be one. `relative` is its path from the folder walked."""

    relative: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Walk:
    """What a folder holds. `videos`: sorted paths relative to it, with forward slashes, unescaped."""

    videos: tuple[str, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


def is_video_name(name: str) -> bool:
    return splitext(name)[1].lower() in VIDEO_SUFFIXES


def find_videos(folder: Path) -> Walk:
    """All videos under `folder`, by name; no file is opened.

    Links to files and folders are followed. A folder reached twice (a loop, or a link to a sibling) is listed
    once, under its real place where that lies in the tree, and the other is noted. Hidden folders, `__MACOSX`
    and macOS's `._*` side files are left out and counted in the notes. Problems: `broken-symlink`,
    `not-a-file` (a pipe or device with a video's name, which would hang whoever opens it),
    `unreadable-folder`.
    """
    walker = _Walker(str(folder))
    walker.walk()
    notes = [f"left out {count:,} {what}" for what, count in sorted(walker.left_out.items())]
    problems = sorted(walker.problems, key=lambda problem: problem.relative)
    repeated = sorted(walker.repeated)
    if len(repeated) > _MOST_NOTES:
        repeated[_MOST_NOTES:] = [f"and {len(repeated) - _MOST_NOTES:,} more such links"]
    return Walk(tuple(sorted(walker.videos)), tuple(problems), tuple(notes + repeated))


class _Walker:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.videos: list[str] = []
        self.problems: list[Problem] = []
        self.left_out: Counter[str] = Counter()
        self.repeated: list[str] = []
        self._linked: list[str] = []
        self._seen: set[tuple[int, int]] = set()

    def walk(self) -> None:
        """Real folders first, linked ones after, so that a folder is known by its real place."""
        self._walk_real("")
        while self._linked:
            batch, self._linked = sorted(self._linked), []
            for relative in batch:
                self._walk_real(relative)

    def _walk_real(self, top: str) -> None:
        pending = [top]
        while pending:
            relative = pending.pop()
            path = f"{self.folder}/{relative}" if relative else self.folder
            try:
                with os.scandir(path) as entries:
                    status = Path(path).stat()
                    if (status.st_dev, status.st_ino) in self._seen:
                        what = "a link to a folder that is listed already"
                        self.repeated.append(f"left out {relative}: {what}")
                        continue
                    self._seen.add((status.st_dev, status.st_ino))
                    prefix = f"{relative}/" if relative else ""
                    for entry in entries:
                        if self._take(entry, prefix + entry.name):
                            pending.append(prefix + entry.name)
            except OSError as error:
                self._problem(relative or ".", "unreadable-folder", error.strerror or str(error))

    def _take(self, entry: os.DirEntry[str], relative: str) -> bool:
        """Files one entry where it belongs; True when it is a folder to enter."""
        name = entry.name
        if entry.is_dir(follow_symlinks=False):
            if name.startswith(".") or name == "__MACOSX":
                self.left_out["hidden folders"] += 1
                return False
            return True
        is_video = is_video_name(name)
        if entry.is_symlink():
            self._take_link(entry, relative, is_video)
        elif is_video and name.startswith("._"):
            self.left_out["macOS side files (._*)"] += 1
        elif is_video and entry.is_file(follow_symlinks=False):
            self.videos.append(relative)
        elif is_video:
            self._problem(relative, "not-a-file", "a pipe, socket or device, not a video file")
        return False

    def _take_link(self, entry: os.DirEntry[str], relative: str, is_video: bool) -> None:
        try:
            mode = Path(entry.path).stat().st_mode
        except OSError as error:  # missing, a link to itself, or behind a closed folder
            if is_video or not splitext(entry.name)[1]:
                target = str(Path(entry.path).readlink())
                self._problem(relative, "broken-symlink", f"points to {target!r}: {error.strerror or error}")
            return
        if stat.S_ISDIR(mode):
            self._linked.append(relative)
        elif is_video and stat.S_ISREG(mode):
            self.videos.append(relative)
        elif is_video:
            self._problem(relative, "not-a-file", "a link to a pipe, socket or device, not to a video file")

    def _problem(self, relative: str, reason: str, detail: str) -> None:
        self.problems.append(Problem(relative, reason, detail))
