"""Lists the clips of a raw data set: LRS2, LRS3, VoxCeleb2, HDTF, GRID, or any folder of videos.

Listing looks at names only; no video is opened. Texts are read later, clip by clip
(`transcripts.with_text`). Splits are the data set's own. Where it has none (`hdtf`, `grid`, `folder`),
sub-folders at the top named train, val (or valid, validation, dev) and test are splits, and everything
else is `train`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from posixpath import basename, splitext

from syncdiff.pipeline import layout_lrs2
from syncdiff.pipeline.layout_base import Found, LayoutError, first_folder, join, only_folder, sub_folders
from syncdiff.pipeline.names import escape_for_id, escape_path, unescape_path, unique_ids
from syncdiff.pipeline.records import Clip, Reject
from syncdiff.pipeline.walk import find_videos

__all__ = ["LAYOUTS", "LayoutError", "Listing", "read_layout", "resembles", "source_path"]

STAGE = "list"
_TREE_SPLITS = {
    "train": "train",
    "test": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
}
_LRS3_FOLDERS = {"pretrain": "pretrain", "trainval": "trainval", "test": "test"}
_VOXCELEB2_FOLDERS = {
    name: split
    for split in ("dev", "test")
    for name in (split, f"vox2_{split}", f"vox2_{split}_mp4", f"vox2_mp4_{split}")
}


@dataclass(frozen=True)
class Listing:
    """The inputs of a data set, each a clip or a reject. Clips are sorted by id, without transcripts."""

    layout: str
    root: Path
    clips: tuple[Clip, ...]
    rejects: tuple[Reject, ...]
    notes: tuple[str, ...] = ()

    def first(self, count: int) -> Listing:
        """The first `count` clips by id, all rejects left aside."""
        return replace(self, clips=self.clips[:count], rejects=())


def read_layout(layout: str, root: str | Path, *, splits: Collection[str] | None = None) -> Listing:
    """The clips of the data set at `root`; `splits` limits them to some of its splits.

    Ids are `<layout>/<split>/<path without suffix>`, the path counted from the split's folder; see
    `names.unique_ids` for files that would share one. Rejects: `missing-file` (named by a list),
    `outside-root` (a list leads out of the data set), `listed-twice`, and the problems of `walk.find_videos`.

    Raises LayoutError when the folder does not look like the layout, or lacks a split that is asked for.
    """
    root = Path(root)
    if layout not in LAYOUTS:
        raise LayoutError(f"no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    _check_folder(root)
    found = Found(root, None if splits is None else frozenset(splits))
    _READERS[layout](found)
    if not found.splits:
        raise LayoutError(_mismatch(layout, root))
    if absent := sorted(set(splits or ()) - found.splits):
        has = ", ".join(sorted(found.splits))
        raise LayoutError(f"{root}: this copy of {layout} has no split {', '.join(absent)}; it has {has}")
    if not found.files and not found.problems:
        raise LayoutError(f"{root}: no videos in {', '.join(sorted(splits or found.splits))}")
    return _listing(layout, found)


def source_path(root: Path, source: str) -> Path:
    """The file that a clip's `source` names."""
    return root / unescape_path(source)


def _listing(layout: str, found: Found) -> Listing:
    root = str(found.root).rstrip("/")
    sources = [escape_path(relative) for _, _, relative, _ in found.files]
    prefixes = [f"{layout}/{split}" for split, _, _, _ in found.files]
    ids = unique_ids(prefixes, [name for _, name, _, _ in found.files], [entry[2] for entry in found.files])
    clips = [
        Clip(
            clip_id,
            Path(f"{root}/{relative}"),
            source,
            split,
            None if speaker is None else escape_path(speaker),
        )
        for clip_id, source, (split, _, relative, speaker) in zip(ids, sources, found.files, strict=True)
    ]
    rejects = [
        Reject(
            source=escape_path(problem.relative),
            clip_id=f"{layout}/{split}/{escape_for_id(splitext(problem.relative)[0])}",
            split=split,
            stage=STAGE,
            reason=problem.reason,
            detail=escape_path(problem.detail),
        )
        for split, problem in found.problems
    ]
    clips.sort(key=lambda clip: clip.id)
    rejects.sort(key=lambda reject: (reject.clip_id, reject.source, reject.reason, reject.detail))
    notes = tuple(escape_path(note) for note in dict.fromkeys(found.notes))
    return Listing(layout, found.root, tuple(clips), tuple(rejects), notes)


# ---- Data sets whose folders are their splits -----------------------------------------------------


def _read_lrs3(found: Found) -> None:
    if layout_lrs2.find_base(found.root) is None:
        _read_split_folders(found, _LRS3_FOLDERS, "lrs3*", depth=2)


def _read_voxceleb2(found: Found) -> None:
    _read_split_folders(found, _VOXCELEB2_FOLDERS, "vox*", depth=3)


def _read_split_folders(found: Found, names: Mapping[str, str], wrapper: str, depth: int) -> None:
    """Folders named as splits, maybe holding `mp4`; clips lie `depth` deep in one set, not in its likes."""
    taken: list[tuple[str, str, tuple[str, ...]]] = []
    probe = Found(found.root, found.wanted)
    for split, folder in _split_folders(found.root, names, wrapper):
        inner = folder
        for name in (split, "mp4"):  # as archives unpack: vox2_dev_mp4/dev/mp4
            inner = join(inner, name) if (found.root / inner / name).is_dir() else inner
        if probe.wants(split):
            taken.append((split, inner, probe.walk(inner, split)))
    videos = [video for _, _, there in taken for video in there]
    if videos and not any(video.count("/") == depth - 1 for video in islice(videos, 100_000)):
        return
    found.splits, found.problems, found.notes = probe.splits, probe.problems, probe.notes
    for split, inner, there in taken:
        found.files += [(split, video, join(inner, video), first_folder(video)) for video in there]


def _split_folders(root: Path, names: Mapping[str, str], wrapper: str) -> list[tuple[str, str]]:
    """(split, folder) of the split folders: in the root, in a wrapper inside it, or the root itself."""
    for base in ("", *sub_folders(root, wrapper), *only_folder(root)):
        here = {name.lower(): name for name in sub_folders(root / base)}
        if present := [(split, join(base, here[name])) for name, split in names.items() if name in here]:
            return present
    own = names.get(root.absolute().name.lower())
    return [(own, "")] if own is not None else []


# ---- Data sets without splits of their own --------------------------------------------------------


def _read_grid(found: Found) -> None:
    _read_tree(found, _grid_speaker, lambda video: _grid_speaker(video) is not None)


def _grid_speaker(video: str) -> str | None:
    """`s1` in `s1/bbaf2n.mpg`, `video/s1/bbaf2n.mpg`, `s1.mpg_6000/s1/bbaf2n.mpg`."""
    matches = (re.match(r"(?i)s\d{1,2}(?![0-9a-z])", part) for part in video.split("/")[:-1])
    return next((match[0].lower() for match in matches if match), None)


def _read_hdtf(found: Found) -> None:
    if resembles(found.root) in ("lrs2", "lrs3", "voxceleb2", "grid"):
        return
    _read_tree(found, _hdtf_speaker)
    if found.files and not any(_is_hdtf_name(name) for _, name, _, _ in found.files):
        found.notes.append("no file is named as in HDTF (RD_..., WDA_..., WRA_...)")


def _is_hdtf_name(path: str) -> bool:
    return basename(path).upper().startswith(("RD_", "WDA_", "WRA_"))


def _hdtf_speaker(video: str) -> str:
    """`WDA_AdamSchiff1_000.mp4` shows WDA_AdamSchiff; names of RD videos tell videos apart, not people."""
    name = re.sub(r"_\d+$", "", splitext(basename(video))[0])
    return re.sub(r"\d+$", "", name) if name.upper().startswith(("WDA_", "WRA_")) else name


def _read_folder(found: Found) -> None:
    _read_tree(found, lambda video: basename(video.rpartition("/")[0]) or None)
    likeness = resembles(found.root)
    if likeness in ("lrs2", "lrs3", "voxceleb2", "grid"):
        found.notes.append(
            f"this looks like {likeness}: `syncdiff-prep {likeness}` would also read its splits and texts"
        )


def _read_tree(
    found: Found, speaker: Callable[[str], str | None], belongs: Callable[[str], bool] = lambda video: True
) -> None:
    """Every video under the root that belongs; top folders named as splits are splits, the rest is train."""
    tops = {
        name: _TREE_SPLITS[name.lower()] for name in sub_folders(found.root) if name.lower() in _TREE_SPLITS
    }
    probe = Found(found.root)
    videos = probe.walk("", "train")
    for video in videos:
        split, name = _split_of(video, tops)
        if belongs(video) and found.wants(split):
            found.files.append((split, name, video, speaker(name)))
    for _, problem in probe.problems:
        split = _split_of(problem.relative, tops)[0]
        if found.wants(split):
            found.problems.append((split, problem))
    found.notes += probe.notes
    if found.wanted is None and found.files and (left := len(videos) - len(found.files)):
        found.notes.append(f"{left:,} videos lie outside the folders of this layout and are left out")


def _split_of(path: str, tops: Mapping[str, str]) -> tuple[str, str]:
    top, _, rest = path.partition("/")
    return (tops[top], rest) if rest and top in tops else ("train", path)


# ---- Which layout is it? --------------------------------------------------------------------------


def resembles(root: Path) -> str | None:
    """The layout that a folder looks like by its first folders and names; None when it holds no video."""
    base = layout_lrs2.find_base(root)
    if base is not None and (base or (root / "main").is_dir()) and sub_folders(root / base / "main"):
        return "lrs2"
    for _, folder in _split_folders(root, _VOXCELEB2_FOLDERS, "vox*"):
        inside = {*sub_folders(root / folder), *sub_folders(root / folder / "mp4")}
        if any(re.fullmatch(r"id\d{5}", name) for name in inside):
            return "voxceleb2"
    lrs3 = {split for split, _ in _split_folders(root, _LRS3_FOLDERS, "lrs3*")}
    if "trainval" in lrs3 or lrs3 >= {"pretrain", "test"}:
        return "lrs3"
    folders = sub_folders(root)
    if any(
        _grid_speaker(f"{name}/")
        for name in (*folders, *(sub for top in folders[:8] for sub in sub_folders(root / top)))
    ):
        return "grid"
    videos = find_videos(root).videos
    if any(map(_is_hdtf_name, videos)):
        return "hdtf"
    return "folder" if videos else None


def _mismatch(layout: str, root: Path) -> str:
    likeness = resembles(root)
    lines = [
        f"{root} does not look like {layout}.",
        f"Looked for: {_LOOKED_FOR[layout]}.",
        f"Found: {_contents(root)}.",
    ]
    if likeness is not None and likeness != layout:
        lines.append(f"It looks like {likeness}; try: syncdiff-prep {likeness} {root}")
    return "\n".join(lines)


def _contents(root: Path) -> str:
    """What lies in a folder, in a line: its first sub-folders, and its files by suffix."""
    folders = sub_folders(root)
    names = [f"{escape_path(name)}/" for name in folders[:6]]
    if len(folders) > len(names):
        names.append(f"{len(folders) - len(names):,} more folders")
    files = [entry.name for entry in root.iterdir() if entry.name not in folders]
    suffixes = Counter(splitext(name)[1].lower() or "no suffix" for name in files)
    names += [f"{count:,} files ({escape_path(suffix)})" for suffix, count in suffixes.most_common(6)]
    if any(
        name.lower().endswith((".zip", ".tar", ".gz", ".tgz", ".rar", ".7z")) or "_part" in name
        for name in files
    ):
        names.append("archives must be unpacked first")
    return ", ".join(names) or "an empty folder"


def _check_folder(root: Path) -> None:
    if root.is_file():
        raise LayoutError(f"{root} is a file; give the folder that holds the data set")
    if not root.is_dir():
        raise LayoutError(f"{root}: no such folder")
    try:
        next(root.iterdir(), None)
    except OSError as error:
        raise LayoutError(f"{root} cannot be read: {error.strerror}") from error


_READERS: dict[str, Callable[[Found], None]] = {
    "lrs2": layout_lrs2.read_lrs2,
    "lrs3": _read_lrs3,
    "voxceleb2": _read_voxceleb2,
    "hdtf": _read_hdtf,
    "grid": _read_grid,
    "folder": _read_folder,
}
_LOOKED_FOR = {
    "lrs2": layout_lrs2.LOOKED_FOR,
    "lrs3": "pretrain/, trainval/ or test/ with <id>/<clip>.mp4 in them (here or in a folder lrs3*)",
    "voxceleb2": "dev/ or test/ with mp4/<id>/<video>/<clip>.mp4 in them (`mp4/` may be missing)",
    "hdtf": "videos, named RD_..., WDA_... or WRA_... in HDTF",
    "grid": "s<k>/<code>.mpg or s<k>/video/<code>.mpg",
    "folder": "videos, here or in sub-folders at any depth",
}
LAYOUTS = tuple(_READERS)
