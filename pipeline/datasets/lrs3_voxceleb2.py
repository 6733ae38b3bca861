"""Reads LRS3 and VoxCeleb2, whose folders are their splits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from syncdiff.pipeline.datasets.base import LayoutError, LayoutScan, join, only_folder, sub_folders
from syncdiff.pipeline.datasets.lrs2 import find_bases

# Names that the folder of a split has in copies of these sets, the plain one first.
_LRS3_FOLDERS = {
    **dict.fromkeys(("pretrain", "lrs3_pretrain"), "pretrain"),
    **dict.fromkeys(("trainval", "lrs3_trainval"), "trainval"),
    **dict.fromkeys(("test", "lrs3_test", "lrs3_test_v0.4"), "test"),
}
_VOXCELEB2_FOLDERS = {
    **dict.fromkeys(("dev", "vox2_dev", "vox2_dev_mp4", "vox2_mp4_dev"), "dev"),
    **dict.fromkeys(("test", "vox2_test", "vox2_test_mp4", "vox2_mp4_test"), "test"),
}


def read_lrs3(scan: LayoutScan) -> None:
    """`{pretrain,trainval,test}/<id>/<clip>.mp4`."""
    if not find_bases(scan.root):
        _read_split_folders(scan, _LRS3_FOLDERS, "lrs3*", depth=2)


def read_voxceleb2(scan: LayoutScan) -> None:
    """`{dev,test}/mp4/<id>/<video>/<clip>.mp4`, with or without `mp4`."""
    _read_split_folders(scan, _VOXCELEB2_FOLDERS, "vox*", depth=3)


def looks_like_lrs3(root: Path) -> bool:
    splits = _split_folders(root, _LRS3_FOLDERS, "lrs3*")
    return "trainval" in splits or splits.keys() >= {"pretrain", "test"}


def looks_like_voxceleb2(root: Path) -> bool:
    folders = _split_folders(root, _VOXCELEB2_FOLDERS, "vox*").items()
    speakers = (
        name for split, places in folders for name in sub_folders(root / _inside(root, places[0], split))
    )
    return any(re.fullmatch(r"id\d{5}", name) for name in speakers)


def _read_split_folders(scan: LayoutScan, names: Mapping[str, str], wrapper: str, depth: int) -> None:
    """Clips lie `depth` parts deep in one set and not in its like; without any there, none is taken."""
    probe = LayoutScan(scan.root, scan.wanted)
    for split, folders in _split_folders(scan.root, names, wrapper).items():
        if probe.wants(split):
            folder = folders[0]
            if len(folders) > 1 and folder not in sub_folders(scan.root):
                listed = ", ".join(folders)
                raise LayoutError(f"{scan.root} holds {split} several times: {listed}; give one of them")
            if len(folders) > 1 or "/" in folder:
                probe.notes.append(f"the {split} taken is {', not '.join(folders)}")
            inside = _inside(scan.root, folder, split)
            probe.add(split, inside, probe.walk(inside, split))
    if any(file.name.count("/") == depth - 1 for file in islice(probe.files, 100_000)) or not probe.files:
        scan.splits, scan.files = probe.splits, probe.files
        scan.problems, scan.notes = probe.problems, probe.notes


def _split_folders(root: Path, names: Mapping[str, str], wrapper: str) -> dict[str, list[str]]:
    """Folders of each split, the likeliest first: in the root, in a folder inside it, or the root itself."""
    folders: dict[str, list[str]] = {}
    for base in dict.fromkeys(["", *sub_folders(root, wrapper), *only_folder(root)]):
        here = {name.lower(): name for name in sub_folders(root / base)}
        for name, split in names.items():
            if name in here:
                folders.setdefault(split, []).append(join(base, here[name]))
    own = names.get(root.absolute().name.lower())
    return folders or ({} if own is None else {own: [""]})


def _inside(root: Path, folder: str, split: str) -> str:
    """Down into what unpacking leaves, such as `vox2_dev_mp4/dev/mp4`."""
    for name in (split, "mp4"):
        folder = join(folder, name) if (root / folder / name).is_dir() else folder
    return folder
