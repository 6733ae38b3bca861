"""A data set in the making: its lock, a completion record for each shard, the manifest made of them.

A finished shard has a record in `.work/done/`, and so has every shard of features that was added later; the
manifest, written last, is made of these records alone, so that a run may stop anywhere and go on later.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.media.ffmpeg import ffmpeg_version
from syncdiff.pipeline.plan import PlanError, RunIdentity, ShardPlan
from syncdiff.pipeline.records import Reject
from syncdiff.pipeline.store.paths import StorePaths
from syncdiff.pipeline.store.schema import REJECT_SCHEMA, SCHEMA_VERSION
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


class PrepRun:
    """One run of a preparation: the folder it writes, the identity of what it makes, and its shards."""

    def __init__(self, root: Path, identity: RunIdentity, plans: tuple[ShardPlan, ...]) -> None:
        self.paths = StorePaths(root)
        self.identity = identity
        self.plans = plans

    @property
    def _done(self) -> Path:
        return self.paths.work / "done"

    @contextmanager
    def started(self, *, overwrite: bool = False) -> Iterator[None]:
        """Make the folder ready and hold it, so that two runs never write the same data set.

        Raises PlanError where it holds something else, another configuration, or a run at work.
        """
        root = self.paths.root
        foreign = root.is_dir() and not self.paths.manifest.is_file() and not self.paths.work.is_dir()
        if foreign and any(root.iterdir()):
            raise PlanError(f"{root} is not empty and is no data set of ours; choose another --out")
        with locked(self.paths):
            earlier = _earlier_identity(self.paths)
            lines = self.identity.differences(earlier) if earlier is not None else []
            if overwrite:
                _remove_store(self.paths)
            elif lines:
                raise PlanError(
                    f"{root} was prepared differently:\n  " + "\n  ".join(lines) + "\n"
                    "Repeat the earlier settings to continue it, choose another --out, "
                    "or give --overwrite to start again."
                )
            self._done.mkdir(parents=True, exist_ok=True)
            for leftover in root.rglob("*.tmp"):
                leftover.unlink()
            identity = json.dumps(asdict(self.identity), sort_keys=True).encode()
            write_atomic(self.paths.work / "identity.json", identity)
            yield

    def remove_manifest(self) -> None:
        """Take the manifest away while shards are being made again: a reader must not see half of each."""
        self.paths.manifest.unlink(missing_ok=True)

    def record(self, result: ShardResult) -> None:
        """Mark a shard as finished. Its files are in place already."""
        write_atomic(self._done / f"{result.name}.json", result.to_json().encode())

    def finished(self, *, retry_rejects: bool = False) -> dict[str, ShardResult]:
        """Shards made by earlier runs that need not be made again, by name.

        A shard is made again where a file of it is missing or of another size, where a reject was transient,
        or, with `retry_rejects`, where it has any.
        """
        found: dict[str, ShardResult] = {}
        for result in _records(self.paths, [plan.name for plan in self.plans]):
            again = any(r.transient or retry_rejects for r in result.rejects)
            if not again and all(_in_place(self.paths.root, e) for e in result.files):
                found[result.name] = result
        return found

    def finish(self, layout_rejects: Sequence[Reject]) -> dict[str, Any]:
        """Write rejects.parquet and then the manifest; return the manifest."""
        results = _records(self.paths, [plan.name for plan in self.plans])
        rejects = [*layout_rejects, *(r for result in results for r in result.rejects)]
        _write_rejects(self.paths.rejects, sorted(rejects, key=lambda r: (r.clip_id, r.source)))
        return write_manifest(self.paths)


@contextmanager
def locked(paths: StorePaths) -> Iterator[None]:
    """Hold a data set's folder for writing. Raises PlanError while another run does."""
    paths.work.mkdir(parents=True, exist_ok=True)
    with (paths.work / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlanError(f"another run is writing {paths.root}; wait for it or stop it") from None
        yield


def write_manifest(paths: StorePaths) -> dict[str, Any]:
    """Gather dataset.json from the completion records, and return it."""
    identity = _earlier_identity(paths)
    results = finished_shards(paths)
    added = {result.name: feature_records(paths, result) for result in results}
    present = Counter(e for r in results for e in {*r.features, *added[r.name]})
    manifest = {
        "schema_version": SCHEMA_VERSION,
        **(identity or {}),
        "counts": _counts(results, pq.read_table(paths.rejects).to_pylist()),
        "features": sorted(e for e, shards in present.items() if shards == len(results)),
        "shards": [_shard_entry(result, added[result.name]) for result in results],
        "rejects": {"file": paths.rejects.name, "sha256": sha256_file(paths.rejects)},
    }
    write_atomic(paths.manifest, json.dumps(manifest, indent=1, sort_keys=True).encode())
    return manifest


def finished_shards(paths: StorePaths) -> list[ShardResult]:
    """All shards with a completion record, in order of name."""
    return _records(paths, sorted(path.stem for path in (paths.work / "done").glob("*.json")))


def record_features(
    paths: StorePaths, extractor_id: str, shard: str, clips_sha256: str, entry: FileEntry
) -> None:
    """Mark a shard's features as finished. They count only as long as the clip shard stays the same."""
    path = paths.work / "features" / extractor_id / f"{shard}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps({"clips_sha256": clips_sha256, "entry": asdict(entry)}).encode())


def feature_records(paths: StorePaths, result: ShardResult) -> dict[str, FileEntry]:
    """Features added to a finished shard, by extractor id, that still belong to its clips."""
    found = {}
    for path in sorted((paths.work / "features").glob(f"*/{result.name}.json")):
        raw = json.loads(path.read_text(encoding="utf-8"))
        entry = FileEntry(**raw["entry"])
        if raw["clips_sha256"] == result.clips.sha256 and _in_place(paths.root, entry):
            found[path.parent.name] = entry
    return found


def _records(paths: StorePaths, names: Iterable[str]) -> list[ShardResult]:
    files = (paths.work / "done" / f"{name}.json" for name in names)
    return [ShardResult.from_json(file.read_text(encoding="utf-8")) for file in files if file.is_file()]


def _in_place(root: Path, entry: FileEntry) -> bool:
    path = root / entry.file
    return path.is_file() and path.stat().st_size == entry.bytes


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


def _write_rejects(path: Path, rejects: Sequence[Reject]) -> None:
    columns = {name: [getattr(r, name) for r in rejects] for name in REJECT_SCHEMA.names}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=REJECT_SCHEMA), sink)
    write_atomic(path, sink.getvalue().to_pybytes())


def _earlier_identity(paths: StorePaths) -> dict[str, Any] | None:
    keys = set(RunIdentity.__dataclass_fields__)
    for path in (paths.work / "identity.json", paths.manifest):
        if path.is_file():
            return {k: v for k, v in json.loads(path.read_text(encoding="utf-8")).items() if k in keys}
    return None


def _remove_store(paths: StorePaths) -> None:
    """Remove what an earlier run made below the folder, and nothing else."""
    for folder in (paths.root / "clips", paths.root / "features", paths.report.parent, paths.work):
        if folder.is_dir():
            shutil.rmtree(folder)
    for file in (paths.manifest, paths.rejects):
        file.unlink(missing_ok=True)
