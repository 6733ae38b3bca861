"""Lists the clips of a raw data set: LRS2, LRS3, VoxCeleb2, HDTF, GRID, or any folder of videos.

Listing looks at names only; no video is opened. Texts are read later, clip by clip
(`transcripts.with_text`). The layouts themselves are in `lrs2`, `lrs3_voxceleb2` and `folders`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from posixpath import splitext

from syncdiff.pipeline.datasets.base import LayoutError, LayoutScan, sub_folders
from syncdiff.pipeline.datasets.clip_ids import escape_path, unescape_path, unique_ids
from syncdiff.pipeline.datasets.find_videos import find_videos
from syncdiff.pipeline.datasets.folders import (
    grid_speaker,
    is_hdtf_name,
    looks_like_grid,
    read_folder,
    read_grid,
    read_hdtf,
)
from syncdiff.pipeline.datasets.lrs2 import find_bases, read_lrs2
from syncdiff.pipeline.datasets.lrs3_voxceleb2 import (
    looks_like_lrs3,
    looks_like_voxceleb2,
    read_lrs3,
    read_voxceleb2,
)
from syncdiff.pipeline.records import Clip, Reject

__all__ = ["LAYOUTS", "LayoutError", "Listing", "read_layout", "resembles", "source_path"]

STAGE = "list"


@dataclass(frozen=True)
class Listing:
    """The inputs of a data set, each a clip or a reject. Clips are sorted by id, without transcripts."""

    layout: str
    root: Path
    clips: tuple[Clip, ...]
    rejects: tuple[Reject, ...]
    notes: tuple[str, ...] = ()


def read_layout(layout: str, root: str | Path, *, splits: Collection[str] | None = None) -> Listing:
    """The clips of the data set at `root`; `splits` limits them to some of its splits.

    Ids are `<layout>/<split>/<path without suffix>`, the path counted from the split's folder; see
    `clip_ids.unique_ids` for files that would share one. Rejects: `missing-file` (named by a list),
    `outside-root` (a list leads out of the data set), `listed-twice`, and the problems of
    `find_videos.find_videos`.

    Raises LayoutError when the folder does not look like the layout, or lacks a split that is asked for.
    """
    root = Path(root)
    if layout not in LAYOUTS:
        raise LayoutError(f"no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    if root.is_file():
        raise LayoutError(f"{root} is a file; give the folder that holds the data set")
    if not root.is_dir():
        raise LayoutError(f"{root}: no such folder")
    try:
        next(root.iterdir(), None)
    except OSError as error:
        raise LayoutError(f"{root} cannot be read: {error.strerror}") from error
    likeness = _known_layout(root)
    scan = LayoutScan(root, None if splits is None else frozenset(splits))
    if layout != "hdtf" or likeness is None:  # HDTF has no folders to be known by, so the others' rule it out
        _READERS[layout](scan)
    if not scan.splits:
        raise LayoutError(_mismatch(layout, root))
    if absent := sorted(set(splits or ()) - scan.splits):
        has = ", ".join(sorted(scan.splits))
        raise LayoutError(f"{root}: this copy of {layout} has no split {', '.join(absent)}; it has {has}")
    if not scan.files and not scan.problems:
        raise LayoutError(f"{root}: no videos in {', '.join(sorted(splits or scan.splits))}")
    if layout == "folder" and likeness:
        scan.notes.append(
            f"this looks like {likeness}: `syncdiff-prep {likeness}` would also read its splits and texts"
        )
    return _listing(layout, scan)


def source_path(root: Path, source: str) -> Path:
    """The file that a clip's `source` names."""
    return root / unescape_path(source)


def resembles(root: Path) -> str | None:
    """The layout that a folder looks like by the names in it; None when it holds no video."""
    if likeness := _known_layout(root):
        return likeness
    videos = find_videos(root).videos
    if any(map(is_hdtf_name, videos)):
        return "hdtf"
    return "folder" if videos else None


def _known_layout(root: Path) -> str | None:
    """The layout whose folders these are, by a look at the first levels."""
    bases = find_bases(root)
    if any((base or (root / "main").is_dir()) and sub_folders(root / base / "main") for base in bases):
        return "lrs2"
    looks = {"voxceleb2": looks_like_voxceleb2, "lrs3": looks_like_lrs3, "grid": looks_like_grid}
    return next((layout for layout, looks_like in looks.items() if looks_like(root)), None)


def _listing(layout: str, scan: LayoutScan) -> Listing:
    root = str(scan.root).rstrip("/")
    everything = [(file.split, file.name, file.relative) for file in scan.files]
    everything += [(split, name, problem.relative) for split, name, problem in scan.problems]
    ids = unique_ids(
        [f"{layout}/{split}" for split, _, _ in everything],
        [name for _, name, _ in everything],
        [relative for _, _, relative in everything],
    )
    clips = [
        Clip(
            id=clip_id,
            path=Path(f"{root}/{file.relative}"),
            source=escape_path(file.relative),
            split=file.split,
            speaker_id=None if file.speaker is None else escape_path(file.speaker),
        )
        for clip_id, file in zip(ids, scan.files)  # noqa: B905 - the ids of the problems follow
    ]
    rejects = [
        Reject(
            source=escape_path(problem.relative),
            clip_id=clip_id,
            split=split,
            stage=STAGE,
            reason=problem.reason,
            detail=escape_path(problem.detail),
        )
        for clip_id, (split, _, problem) in zip(ids[len(clips) :], scan.problems, strict=True)
    ]
    clips.sort(key=lambda clip: clip.id)
    rejects.sort(key=lambda reject: (reject.clip_id, reject.source, reject.reason, reject.detail))
    notes = tuple(escape_path(note) for note in dict.fromkeys(scan.notes))
    return Listing(layout, scan.root, tuple(clips), tuple(rejects), notes)


def _mismatch(layout: str, root: Path) -> str:
    lines = [
        f"{root} does not look like {layout}.",
        f"Looked for: {_LOOKED_FOR[layout]}.",
        f"Found: {_contents(root)}.",
    ]
    name, above = root.absolute().name, root.absolute().parent
    inside = name.lower() in ("main", "pretrain", "trainval", "test", "dev", "mp4")
    inside = inside or grid_speaker(f"{name}/") is not None  # the folder is likely a part of a data set
    if inside and _known_layout(above) == layout:
        lines.append(f"The folder above it does; try: syncdiff-prep {layout} {above}")
    elif (likeness := resembles(root)) not in (None, layout):
        lines.append(f"It looks like {likeness}; try: syncdiff-prep {likeness} {root}")
    return "\n".join(lines)


def _contents(root: Path) -> str:
    """What lies in a folder, in a line: its first sub-folders, and its files by suffix."""
    folders = sub_folders(root)
    names = [f"{escape_path(name)}/" for name in folders[:6]]
    if len(folders) > len(names):
        names.append(f"{len(folders) - len(names):,} more folders")
    files = sorted({entry.name for entry in root.iterdir()}.difference(folders))
    suffixes = Counter(splitext(name)[1].lower() or "no suffix" for name in files)
    names += [f"{count:,} files ({escape_path(suffix)})" for suffix, count in suffixes.most_common(6)]
    archives = (".zip", ".tar", ".gz", ".tgz", ".rar", ".7z")
    if any(name.lower().endswith(archives) or "_part" in name for name in files):
        names.append("archives must be unpacked first")
    return ", ".join(names) or "an empty folder"


_READERS: dict[str, Callable[[LayoutScan], None]] = {
    "lrs2": read_lrs2,
    "lrs3": read_lrs3,
    "voxceleb2": read_voxceleb2,
    "hdtf": read_hdtf,
    "grid": read_grid,
    "folder": read_folder,
}
_LOOKED_FOR = {
    "lrs2": "main/<speaker>/<clip>.mp4, here or in mvlrs_v1; train.txt, val.txt, test.txt beside or in it",
    "lrs3": "pretrain/, trainval/ or test/ with <id>/<clip>.mp4 in them (here or in a folder lrs3*)",
    "voxceleb2": "dev/ or test/ with mp4/<id>/<video>/<clip>.mp4 in them (`mp4/` may be missing)",
    "hdtf": "videos, named RD_..., WDA_... or WRA_... in HDTF",
    "grid": "s<k>/<code>.mpg or s<k>/video/<code>.mpg",
    "folder": "videos, here or in sub-folders at any depth",
}
LAYOUTS = tuple(_READERS)
