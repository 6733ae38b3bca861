"""Where the parts of a data set lie below its folder, and its manifest, whose names are checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PLAIN_NAME = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,199}")  # neither hidden nor `..`


class StoreError(Exception):
    """A folder that is no finished data set, or lacks what was asked of it; the message says what to do."""


@dataclass(frozen=True)
class StorePaths:
    """Where the parts of a data set lie below its folder."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "dataset.json"

    @property
    def rejects(self) -> Path:
        return self.root / "rejects.parquet"

    @property
    def report(self) -> Path:
        return self.root / "report" / "index.html"

    @property
    def work(self) -> Path:
        """Completion records, the run's identity and its lock. It stays: a later run continues from it."""
        return self.root / ".work"

    @property
    def lock(self) -> Path:
        return self.work / "lock"

    @property
    def identity(self) -> Path:
        return self.work / "identity.json"

    @property
    def done(self) -> Path:
        return self.work / "done"

    @property
    def inputs(self) -> Path:
        """What was asked for: folder of the raw data set, splits, limit. `verify --repair` reads it."""
        return self.work / "inputs.json"

    def record(self, shard: str) -> Path:
        """Completion record of a shard."""
        return self.done / f"{shard}.json"

    def feature_record(self, extractor_id: str, shard: str) -> Path:
        """Completion record of a shard of features that were added later."""
        return self.work / "features" / extractor_id / f"{shard}.json"

    def loader(self, extractor_id: str) -> Path:
        """What loads an extractor whose features were added later. `verify --repair` reads it."""
        return self.work / "loaders" / f"{extractor_id}.json"

    def clips(self, shard: str) -> Path:
        return self.root / "clips" / f"{shard}.parquet"

    def features(self, extractor_id: str, shard: str) -> Path:
        return self.root / "features" / extractor_id / f"{shard}.parquet"

    def extractor(self, extractor_id: str) -> Path:
        return self.root / "features" / extractor_id / "extractor.json"


def read_manifest(root: Path) -> dict[str, Any]:
    """The content of dataset.json, with names and links checked: see `check_names` and `check_links`.

    Raises StoreError where the folder holds no finished data set, or one that cannot be trusted.
    """
    paths = StorePaths(root)
    if paths.manifest.is_file():
        manifest = read_json(paths.manifest)
        check_names(paths, manifest)
        check_links(paths)
        return manifest
    if paths.work.is_dir():
        raise StoreError(f"{root}: preparation is not finished; run the same syncdiff-prep command again")
    hint = f"make one with syncdiff-prep LAYOUT RAW --out {root}"
    raise StoreError(f"{root}: no data set here (dataset.json is missing); {hint}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises StoreError with the file's name where there is none in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: {error or 'nested too deeply'}") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path} is damaged: it holds no JSON object")
    return content


def check_names(paths: StorePaths, manifest: Mapping[str, Any]) -> None:
    """Raise StoreError unless all that a manifest names is a file of the store itself.

    A data set may come from anyone. Its splits, shards and extractors become names of files, so each must be
    a single plain part of a path, and every file must lie where `StorePaths` puts it.
    """
    try:
        names = list(manifest["features"])
        for shard in manifest["shards"]:
            names += [shard["name"], shard["split"], *shard["features"]]
        for name in names:
            if not (isinstance(name, str) and _PLAIN_NAME.fullmatch(name)):
                raise StoreError(f"{paths.manifest}: {name!r} cannot name a split, shard or extractor")
        for shard in manifest["shards"]:
            places = [(shard["clips"], paths.clips(shard["name"]))]
            places += [(file, paths.features(e, shard["name"])) for e, file in shard["features"].items()]
            for file, place in places:
                if paths.root / file["file"] != place:
                    raise StoreError(f"{paths.manifest}: {file['file']!r} should be {place.name}")
    except (TypeError, KeyError, AttributeError) as error:
        raise StoreError(f"{paths.manifest} is no manifest of a data set ({error!r})") from error


def check_links(paths: StorePaths) -> None:
    """Raise StoreError where a link at a place that is read or written leads out of the data set."""
    inside = paths.root.resolve()
    for pattern in ("*", "clips/*", "features/*", "features/*/*", "report/*", ".work/*", ".work/features/*"):
        for path in paths.root.glob(pattern):
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise StoreError(
                    f"{path} is a link that leads out of the data set; put the file itself there"
                )


# A part of a path that is empty, `.` or `..`, written plainly or percent-escaped; and NUL.
_LEADS_OUT = r"(^|/|%2[fF])(\.|%2[eE]){0,2}(/|%2[fF]|$)|\x00"
BAD_TEXT = {
    "clip_id": _LEADS_OUT,
    "source": _LEADS_OUT,
    "split": _LEADS_OUT + "|[/\\\\]",
}
"""Column -> regular expression (of Python and of RE2) of what no program of ours writes there.

These texts become paths: of exported clips, of generated videos, of sources that are read again.
"""
