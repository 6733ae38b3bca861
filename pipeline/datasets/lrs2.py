"""Reads LRS2: clips under `mvlrs_v1/main` and `mvlrs_v1/pretrain`, assigned to splits by lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from posixpath import basename, normpath, splitext

from syncdiff.pipeline.datasets.base import (
    LayoutError,
    LayoutScan,
    SplitProblem,
    SplitVideo,
    first_folder,
    join,
    only_folder,
    sub_folders,
)
from syncdiff.pipeline.datasets.find_videos import VIDEO_SUFFIXES, Problem

_LISTS = ("test", "val", "train", "pretrain")  # a clip that two lists name stays in the first of these
_LISTED_SUFFIXES = VIDEO_SUFFIXES | {".txt", ".wav"}


def find_bases(root: Path) -> list[str]:
    """Where `main` or `pretrain` lies, from the root; empty when it is no LRS2 (LRS3 has `pretrain` too).

    More than one where several copies lie side by side and the root is none itself.
    """

    def holds_clips(base: str) -> bool:
        here = set(sub_folders(root / base))
        return "main" in here or ("pretrain" in here and not here & {"trainval", "test"})

    own = next(([base] for base in ("", "mvlrs_v1") if holds_clips(base)), [])
    wrapped = [join(folder, "mvlrs_v1") for folder in sub_folders(root)]
    return own or list(filter(holds_clips, dict.fromkeys([*wrapped, *only_folder(root)])))


def read_lrs2(scan: LayoutScan) -> None:
    """Takes down every clip that a list names, and `pretrain` as a whole where it has no list.

    A line opens with `<speaker>/<clip>`; `main/` before it, a suffix, and words after it are accepted. What
    lies on no list is counted in a note.
    """
    bases = find_bases(scan.root)
    if not bases:
        return
    if len(bases) > 1:
        raise LayoutError(f"{scan.root} holds several copies of LRS2: {', '.join(bases)}; give one of them")
    base = bases[0]
    if base not in ("", "mvlrs_v1"):
        scan.notes.append(f"the data set taken is {base}")
    reader = _Reader(scan, base)
    lists = {split: path for split in _LISTS if (path := _find_list(scan.root, base, split))}
    wanted = [split for split in lists if scan.wants(split)]
    if wanted and wanted != ["pretrain"]:  # lists before a wanted one are read too: a clip stays in the first
        for split in list(lists)[: list(lists).index(wanted[-1]) + 1]:
            reader.read_list(split, lists[split])
    elif wanted:
        reader.read_list("pretrain", lists["pretrain"])
    if "pretrain" not in lists and (scan.root / base / "pretrain").is_dir() and scan.wants("pretrain"):
        folder = join(base, "pretrain")
        scan.add("pretrain", folder, scan.walk(folder, "pretrain"))
    if not scan.splits:
        raise LayoutError(
            f"{scan.root}: {join(base, 'main')} is there, but train.txt, val.txt and test.txt are neither "
            "beside nor inside it; they say which clip belongs to which split and come with the data set"
        )
    if missing := [f"{split}.txt" for split in ("train", "val", "test") if split not in lists]:
        scan.notes.append(f"no {', '.join(missing)} beside or inside the data set")
    if scan.wanted is None:
        reader.note_unlisted()


class _Reader:
    """The lists of one data set, read in order."""

    def __init__(self, scan: LayoutScan, base: str) -> None:
        self.scan = scan
        self.base = base
        self.videos: dict[str, dict[str, str]] = {}  # folder -> path without suffix -> path
        self.split_of: dict[str, str] = {}
        self.seen: set[str] = set()

    def read_list(self, split: str, path: Path) -> None:
        home = "pretrain" if split == "pretrain" else "main"
        # A byte order mark and Windows line ends are dropped.
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = [(number, line) for number, line in enumerate(file, start=1) if line.strip()]
        for number, line in lines:
            folder, key, video = self._look_up(line, home, split)
            relative = join(self.base, folder, video or f"{key}.mp4")
            where = f"{path.name} line {number}"
            if self.split_of.setdefault(relative, split) != split:
                detail = f"{where} names it, and so does {self.split_of[relative]}.txt, where it stays"
                self._reject(split, key, relative, "listed-twice", detail)
            elif relative in self.seen:
                if self.scan.wants(split):
                    self.scan.notes.append(f"{path.name} names some clips more than once")
            elif key.startswith(("/", "../")) or key in ("..", "."):
                detail = f"{where} leads out of {folder}: {line.strip()!r}"
                self._reject(split, key, key, "outside-root", detail)
            elif video is None:
                detail = f"{where} names it, but there is no such video"
                self._reject(split, key, relative, "missing-file", detail)
            elif self.scan.wants(split):
                self.scan.files.append(SplitVideo(split, video, relative, first_folder(video)))
            self.seen.add(relative)

    def _look_up(self, line: str, home: str, split: str) -> tuple[str, str, str | None]:
        """Folder, `<speaker>/<clip>` and video of a line, or of its first word if the whole names none."""
        folder, key = home, "."
        data_set = basename(self.base) or basename(self.scan.root.as_posix())
        for text in (line.strip(), line.split()[0]):
            folder, parts = home, normpath(text.replace("\\", "/")).split("/")
            while len(parts) > 2 and parts[0] in (data_set, "main", "pretrain"):
                folder = folder if parts[0] == data_set else parts[0]
                parts = parts[1:]
            stem, suffix = splitext("/".join(parts))
            key = stem if suffix.lower() in _LISTED_SUFFIXES else stem + suffix
            if folder not in self.videos:
                place = join(self.base, folder)
                videos = self.scan.walk(place, split) if (self.scan.root / place).is_dir() else ()
                self.videos[folder] = {splitext(video)[0]: video for video in videos}
            if video := self.videos[folder].get(key):
                return folder, key, video
        return folder, key, None

    def note_unlisted(self) -> None:
        main = join(self.base, "main")
        if "main" not in self.videos and (self.scan.root / main).is_dir():  # no list asked for any of it
            videos = LayoutScan(self.scan.root).walk(main, "train")
            self.videos["main"] = {splitext(video)[0]: video for video in videos}
        listed = sum(file.split != "pretrain" or "pretrain" in self.videos for file in self.scan.files)
        if (left := sum(map(len, self.videos.values())) - listed) > 0:
            self.scan.notes.append(f"{left:,} videos are on no list and are left out")

    def _reject(self, split: str, key: str, relative: str, reason: str, detail: str) -> None:
        if self.scan.wants(split):
            problem = Problem(relative, reason, detail)
            self.scan.problems.append(SplitProblem(split, f"{key}.mp4", problem))


def _find_list(root: Path, base: str, split: str) -> Path | None:
    """`<split>.txt` inside `mvlrs_v1`, beside it, or in a folder of lists."""
    inside = root / base
    places = (inside, inside.parent if base else inside.absolute().parent, inside / "main", root)
    folders: Iterator[Path] = (
        place / sub for place in places for sub in ("", "filelists", "lists", "splits")
    )
    return next((path for folder in folders if (path := folder / f"{split}.txt").is_file()), None)
