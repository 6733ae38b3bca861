"""Reads GRID, HDTF and any folder of videos: trees without splits of their own.

Sub-folders at the top named train, val (or valid, validation, dev) and test are splits, and everything else
is `train`. A single folder around everything is looked through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from posixpath import basename, splitext

from syncdiff.pipeline.datasets.base import (
    LayoutScan,
    SplitProblem,
    SplitVideo,
    join,
    only_folder,
    sub_folders,
)

_SPLITS = {
    **{name: name for name in ("train", "val", "test")},
    **dict.fromkeys(("valid", "validation", "dev"), "val"),
}


def read_grid(scan: LayoutScan) -> None:
    """`s<k>/video/<code>.mpg`, `s<k>/<code>.mpg` and the like; videos elsewhere are left out and counted."""
    _read_tree(scan, grid_speaker, lambda path: grid_speaker(path) is not None)


def read_hdtf(scan: LayoutScan) -> None:
    """Videos anywhere; a note says when none is named as in HDTF."""

    def speaker(path: str) -> str:
        """`WDA_AdamSchiff1_000.mp4` shows WDA_AdamSchiff; RD names tell videos apart, not people."""
        name = re.sub(r"_\d+$", "", splitext(basename(path))[0])
        return re.sub(r"\d+$", "", name) if name.upper().startswith(("WDA_", "WRA_")) else name

    _read_tree(scan, speaker)
    if scan.files and not any(is_hdtf_name(file.name) for file in scan.files):
        scan.notes.append("no file is named as in HDTF (RD_..., WDA_..., WRA_...)")


def read_folder(scan: LayoutScan) -> None:
    """Videos anywhere; the folder that holds one is taken for its speaker."""
    _read_tree(scan, lambda path: basename(path.rpartition("/")[0]) or None)


def grid_speaker(path: str) -> str | None:
    """`s1` in `s1/bbaf2n.mpg`, `video/s1/bbaf2n.mpg`, `s1.mpg_6000/s1/bbaf2n.mpg`."""
    matches = (re.match(r"(?i)s\d{1,2}(?![0-9a-z])", part) for part in path.split("/")[:-1])
    return next((match[0].lower() for match in matches if match), None)


def looks_like_grid(root: Path) -> bool:
    """Speaker folders here or one level down."""
    tops = sub_folders(root)
    below = (join(top, name) for top in tops[:8] for name in sub_folders(root / top))
    return any(grid_speaker(f"{folder}/") for folder in (*tops, *below))


def is_hdtf_name(path: str) -> bool:
    return basename(path).upper().startswith(("RD_", "WDA_", "WRA_"))


def _read_tree(
    scan: LayoutScan, speaker: Callable[[str], str | None], belongs: Callable[[str], bool] = lambda path: True
) -> None:
    folders = _split_folders(scan.root)
    probe = LayoutScan(scan.root)
    videos = probe.walk("", "train")
    for path in filter(belongs, videos):
        split, name = _place(path, folders)
        if scan.wants(split):
            scan.files.append(SplitVideo(split, name, path, speaker(name)))
    for _, path, problem in probe.problems:
        split, name = _place(path, folders)
        if belongs(path) and scan.wants(split):
            scan.problems.append(SplitProblem(split, name, problem))
    scan.notes += probe.notes
    if scan.wanted is None and scan.files and (left := len(videos) - len(scan.files)):
        scan.notes.append(f"{left:,} videos lie outside the folders of this layout and are left out")


def _split_folders(root: Path) -> dict[str, str]:
    """Folders (with a slash at the end) that are splits, at the top or in the single folder there."""
    for base in ("", *only_folder(root)):
        names = [name for name in sub_folders(root / base) if name.lower() in _SPLITS]
        if names:
            return {f"{join(base, name)}/": _SPLITS[name.lower()] for name in names}
    return {}


def _place(path: str, folders: Mapping[str, str]) -> tuple[str, str]:
    """Split of a path, and the path within its folder."""
    for folder, split in folders.items():
        if path.startswith(folder):
            return split, path[len(folder) :]
    return "train", path
