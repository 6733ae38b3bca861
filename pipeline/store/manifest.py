"""What is finished of a data set: a completion record for each shard, and the manifest made of them.

A finished shard has a record in `.work/done/`, and so has every shard of features that was added later; the
manifest, written last, is made of these records alone, so that a run may stop anywhere and go on later.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow.parquet as pq
import soundfile

from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.media.ffmpeg import ffmpeg_version
from syncdiff.pipeline.plan import RunIdentity
from syncdiff.pipeline.records import Reject
from syncdiff.pipeline.store.paths import StorePaths
from syncdiff.pipeline.store.schema import SCHEMA_VERSION
from syncdiff.pipeline.store.write import FileEntry, write_atomic

_PACKAGES = ("syncdiff", "dlib-bin", "numpy", "opencv-python", "pyarrow", "scipy", "soundfile")


def package_version(name: str) -> str:
    """Installed version of a package, or "absent"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def versions() -> dict[str, str]:
    """Program -> version, for everything between a video and its shard."""
    packages = {name: package_version(name) for name in _PACKAGES}
    return {**packages, "ffmpeg": ffmpeg_version(), "libsndfile": str(soundfile.__libsndfile_version__)}


@dataclass(frozen=True)
class ShardResult:
    """A finished shard as its completion record and the manifest hold it."""

    name: str
    split: str
    inputs: int
    prepared: int
    frames: int
    clips: FileEntry
    features: Mapping[str, FileEntry] = field(default_factory=dict)
    rejects: tuple[Reject, ...] = ()

    @property
    def files(self) -> tuple[FileEntry, ...]:
        return self.clips, *self.features.values()

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> ShardResult:
        raw = json.loads(text)
        raw["clips"] = FileEntry(**raw["clips"])
        raw["features"] = {name: FileEntry(**entry) for name, entry in raw["features"].items()}
        raw["rejects"] = tuple(Reject(**reject) for reject in raw["rejects"])
        return ShardResult(**raw)


def write_manifest(paths: StorePaths) -> dict[str, Any]:
    """Gather dataset.json from the completion records, and return it."""
    results = finished_shards(paths)
    added = {result.name: feature_records(paths, result) for result in results}
    present = Counter(e for r in results for e in {*r.features, *added[r.name]})
    manifest = {
        "schema_version": SCHEMA_VERSION,
        **(earlier_identity(paths) or {}),
        "counts": _counts(results, pq.read_table(paths.rejects).to_pylist()),
        "features": sorted(e for e, shards in present.items() if shards == len(results)),
        "shards": [_shard_entry(result, added[result.name]) for result in results],
        "rejects": {"file": paths.rejects.name, "sha256": sha256_file(paths.rejects)},
    }
    write_atomic(paths.manifest, json.dumps(manifest, indent=1, sort_keys=True).encode())
    return manifest


def finished_shards(paths: StorePaths, names: Sequence[str] | None = None) -> list[ShardResult]:
    """The shards with a completion record among `names`; by default all, in order of name."""
    if names is None:
        names = sorted(path.stem for path in paths.done.glob("*.json"))
    files = [paths.record(name) for name in names]
    return [ShardResult.from_json(file.read_text(encoding="utf-8")) for file in files if file.is_file()]


def record_features(
    paths: StorePaths, extractor_id: str, shard: str, clips_sha256: str, entry: FileEntry
) -> None:
    """Mark a shard's features as finished. They count only as long as the clip shard stays the same."""
    path = paths.feature_record(extractor_id, shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"clips_sha256": clips_sha256, "entry": asdict(entry)}).encode())


def feature_records(paths: StorePaths, result: ShardResult) -> dict[str, FileEntry]:
    """Features added to a finished shard, by extractor id, that still belong to its clips."""
    entries = {}
    for path in sorted((paths.work / "features").glob(f"*/{result.name}.json")):
        raw = json.loads(path.read_text(encoding="utf-8"))
        entry = FileEntry(**raw["entry"])
        if raw["clips_sha256"] == result.clips.sha256 and entry.in_place(paths.root):
            entries[path.parent.name] = entry
    return entries


def earlier_identity(paths: StorePaths) -> dict[str, Any] | None:
    """What an earlier run was to make, as `RunIdentity` in JSON; None where there was none."""
    keys = set(RunIdentity.__dataclass_fields__)
    for path in (paths.identity, paths.manifest):
        if path.is_file():
            return {k: v for k, v in json.loads(path.read_text(encoding="utf-8")).items() if k in keys}
    return None


def _shard_entry(result: ShardResult, added: Mapping[str, FileEntry]) -> dict[str, Any]:
    entry = asdict(result)
    entry["rejects"] = len(result.rejects)
    entry["features"].update({name: asdict(file) for name, file in added.items()})
    return entry


def _counts(results: Sequence[ShardResult], rejects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    empty = {"inputs": 0, "prepared": 0, "rows": 0, "frames": 0, "rejects": 0}
    splits: dict[str, dict[str, int]] = {}
    for result in results:
        split = splits.setdefault(result.split, dict(empty))
        split["prepared"] += result.prepared
        split["rows"] += result.clips.rows
        split["frames"] += result.frames
    for reject in rejects:
        splits.setdefault(reject["split"], dict(empty))["rejects"] += 1
    for split in splits.values():
        split["inputs"] = split["prepared"] + split["rejects"]
    reasons = Counter(f"{r['stage']}/{r['reason']}" for r in rejects)
    return {"splits": splits, "reject_reasons": dict(sorted(reasons.items()))}
