"""What is finished of a data set: a completion record for each shard, and the manifest made of them.

A finished shard has a record in `.work/done/`, and so has every shard of features that was added later; the
manifest, written last, is made of these records alone, so that a run may stop anywhere and go on later.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import soundfile

from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.media.ffmpeg import ffmpeg_version
from syncdiff.pipeline.plan import RunIdentity
from syncdiff.pipeline.records import Reject
from syncdiff.pipeline.store.parquet import open_parquet
from syncdiff.pipeline.store.paths import StoreError, StorePaths, check_names, read_json
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
class SourceFile:
    """A raw video as it was when it was prepared; `sha256` is None where it gave no row."""

    bytes: int
    mtime_ns: int
    sha256: str | None = None

    def changed(self, path: Path) -> bool:
        """Whether another file lies there now: by size and time, by its hash where only the time is another.

        A file that gave no row and has another time counts as changed; one that cannot be read does not.
        """
        try:
            status = path.stat()
            if (status.st_size, status.st_mtime_ns) == (self.bytes, self.mtime_ns):
                return False
            return status.st_size != self.bytes or self.sha256 is None or sha256_file(path) != self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class ShardResult:
    """A finished shard as its completion record and, without `sources` (by path), the manifest hold it."""

    name: str
    split: str
    inputs: int
    prepared: int
    frames: int
    clips: FileEntry
    features: Mapping[str, FileEntry] = field(default_factory=dict)
    rejects: tuple[Reject, ...] = ()
    sources: Mapping[str, SourceFile] = field(default_factory=dict)

    @property
    def files(self) -> tuple[FileEntry, ...]:
        return self.clips, *self.features.values()


def write_record(paths: StorePaths, result: ShardResult) -> None:
    """Mark a shard as finished, with its files' times: by them a later run sees that they are unchanged."""
    write_state(paths.record(result.name), {**asdict(result), "mtime_ns": file_times(paths, result)})


def file_times(paths: StorePaths, result: ShardResult) -> dict[str, int]:
    """When each file of a shard was written last: file -> mtime in ns."""
    return {entry.file: (paths.root / entry.file).stat().st_mtime_ns for entry in result.files}


def read_record(paths: StorePaths, name: str) -> tuple[ShardResult, dict[str, int]] | None:
    """A shard's completion record: what was made, and the time of each file (file -> mtime in ns).

    None where there is none, or a damaged one: the shard then counts as never made.
    """
    try:
        raw = read_state(paths.record(name))
        times = dict(raw.pop("mtime_ns", {}))
        raw["clips"] = FileEntry(**raw["clips"])
        raw["features"] = {e: FileEntry(**entry) for e, entry in raw["features"].items()}
        raw["rejects"] = tuple(Reject(**reject) for reject in raw["rejects"])
        raw["sources"] = {name: SourceFile(**source) for name, source in raw.get("sources", {}).items()}
        result = ShardResult(**raw)
        check_names(paths, {"features": [], "shards": [asdict(result)]})
    except (FileNotFoundError, StoreError, TypeError, KeyError, AttributeError, ValueError):
        return None
    return (result, times) if result.name == name else None


def finished_shards(paths: StorePaths, names: Sequence[str] | None = None) -> list[ShardResult]:
    """The shards with a completion record among `names`; by default all, in order of name."""
    if names is None:
        names = sorted(path.stem for path in paths.done.glob("*.json"))
    return [record[0] for name in names if (record := read_record(paths, name))]


def record_features(
    paths: StorePaths, extractor_id: str, shard: str, clips_sha256: str, entry: FileEntry
) -> None:
    """Mark a shard's features as finished. They count only as long as the clip shard stays the same."""
    path = paths.feature_record(extractor_id, shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    mtime_ns = (paths.root / entry.file).stat().st_mtime_ns
    described = extractor_sha256(paths, extractor_id)
    record = {"clips_sha256": clips_sha256, "entry": asdict(entry), "mtime_ns": mtime_ns}
    write_state(path, {**record, "extractor_sha256": described})


def feature_records(paths: StorePaths, result: ShardResult) -> dict[str, FileEntry]:
    """Features added to a finished shard, by extractor id, that are whole and still belong to its clips."""
    entries = {}
    for path in sorted((paths.work / "features").glob(f"*/{result.name}.json")):
        extractor_id = path.parent.name
        try:
            raw = read_state(path)
            entry, clips_sha256 = FileEntry(**raw["entry"]), raw["clips_sha256"]
        except (StoreError, TypeError, KeyError):
            continue  # a damaged record: the features are made again
        ours = paths.root / entry.file == paths.features(extractor_id, result.name)
        ours = ours and clips_sha256 == result.clips.sha256
        if ours and entry.unchanged(paths.root, raw.get("mtime_ns")):
            entries[extractor_id] = entry
    return entries


def extractor_sha256(paths: StorePaths, extractor_id: str) -> str | None:
    """Hash of an extractor.json: of what it was when features were added by it, else of what it is now.

    So a damaged extractor.json is not taken for another extractor's. None where there is neither.
    """
    for path in (paths.work / "features" / extractor_id).glob("*.json"):
        with suppress(StoreError):
            if sha256 := read_state(path).get("extractor_sha256"):
                return str(sha256)
    path = paths.extractor(extractor_id)
    return sha256_file(path) if path.is_file() else None


def write_state(path: Path, content: Mapping[str, Any]) -> None:
    """A small JSON file of a run, with a hash of its content."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    write_atomic(path, json.dumps({**content, "content_sha256": digest}, sort_keys=True).encode())


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote. Raises StoreError where the file is damaged; older ones have no hash."""
    content = read_json(path)
    digest = content.pop("content_sha256", None)
    written = json.dumps(content, sort_keys=True).encode()
    if digest is not None and digest != hashlib.sha256(written).hexdigest():
        raise StoreError(f"{path} is damaged: its content is not what was written")
    return content


def earlier_identity(paths: StorePaths) -> dict[str, Any] | None:
    """What an earlier run was to make, as `RunIdentity` in JSON; None where nothing readable says it."""
    keys = set(RunIdentity.__dataclass_fields__)
    for path in (paths.identity, paths.manifest):
        with suppress(FileNotFoundError, StoreError):
            content = read_state(path) if path == paths.identity else read_json(path)
            if keys <= content.keys():
                return {key: value for key, value in content.items() if key in keys}
    return None


def write_manifest(paths: StorePaths) -> dict[str, Any]:
    """Gather dataset.json from the completion records, and return it."""
    manifest = gather_manifest(paths)
    write_atomic(paths.manifest, json.dumps(manifest, indent=1, sort_keys=True).encode())
    return manifest


def gather_manifest(paths: StorePaths) -> dict[str, Any]:
    """What dataset.json is to hold, by the completion records."""
    results = finished_shards(paths)
    added = {result.name: feature_records(paths, result) for result in results}
    present = Counter(e for r in results for e in {*r.features, *added[r.name]})
    with open_parquet(paths.rejects) as file:
        rejects = file.read().to_pylist()
    shards = [asdict(result) for result in results]
    for shard in shards:
        shard["rejects"] = len(shard["rejects"])
        del shard["sources"]  # their times differ from copy to copy
        shard["features"].update({name: asdict(file) for name, file in added[shard["name"]].items()})
    return {
        "schema_version": SCHEMA_VERSION,
        **(earlier_identity(paths) or {}),
        "counts": _counts(results, rejects),
        "features": sorted(e for e, shards in present.items() if shards == len(results)),
        "extractors": {e: {"sha256": extractor_sha256(paths, e)} for e in present},
        "shards": shards,
        "rejects": {"file": paths.rejects.name, "sha256": sha256_file(paths.rejects)},
    }


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
