"""Where the parts of a data set lie below its folder, and its manifest `dataset.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
    def identity(self) -> Path:
        return self.work / "identity.json"

    @property
    def done(self) -> Path:
        return self.work / "done"

    def record(self, shard: str) -> Path:
        """Completion record of a shard."""
        return self.done / f"{shard}.json"

    def feature_record(self, extractor_id: str, shard: str) -> Path:
        """Completion record of a shard of features that were added later."""
        return self.work / "features" / extractor_id / f"{shard}.json"

    def clips(self, shard: str) -> Path:
        return self.root / "clips" / f"{shard}.parquet"

    def features(self, extractor_id: str, shard: str) -> Path:
        return self.root / "features" / extractor_id / f"{shard}.parquet"

    def extractor(self, extractor_id: str) -> Path:
        return self.root / "features" / extractor_id / "extractor.json"


def read_manifest(root: Path) -> dict[str, Any]:
    """The content of dataset.json. Raises StoreError where the folder holds no finished data set."""
    paths = StorePaths(root)
    if paths.manifest.is_file():
        manifest: dict[str, Any] = json.loads(paths.manifest.read_text(encoding="utf-8"))
        return manifest
    if paths.work.is_dir():
        raise StoreError(f"{root}: preparation is not finished; run the same syncdiff-prep command again")
    hint = f"make one with syncdiff-prep LAYOUT RAW --out {root}"
    raise StoreError(f"{root}: no data set here (dataset.json is missing); {hint}")
