"""One run of a preparation: it holds the folder, keeps what is finished, removes only what is ours."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from syncdiff.pipeline.plan import PlanError, RunIdentity, ShardPlan
from syncdiff.pipeline.records import Reject, RunError
from syncdiff.pipeline.store.manifest import (
    ShardResult,
    earlier_identity,
    file_times,
    finished_shards,
    read_record,
    write_manifest,
    write_record,
    write_state,
)
from syncdiff.pipeline.store.paths import StoreError, StorePaths, check_links, read_manifest
from syncdiff.pipeline.store.schema import REJECT_SCHEMA
from syncdiff.pipeline.store.write import write_atomic


def check_apart(out: Path, raw: Path) -> None:
    """Raise PlanError where the data set's folder is, contains or lies in the raw data.

    Compares the folders themselves, not their names: links and mounts do not hide one in the other.
    """
    for inner, outer in ((out, raw), (raw, out)):
        inner = inner.resolve()
        if outer.exists() and any(p.exists() and p.samefile(outer) for p in (inner, *inner.parents)):
            how = "is" if out.exists() and out.samefile(raw) else "lies in" if outer is raw else "contains"
            raise PlanError(
                f"--out {out} {how} the raw data set {raw}, which is only read; give another --out"
            )


class PrepRun:
    """One run of a preparation: the folder it writes, the identity of what it makes, and its shards."""

    def __init__(self, root: Path, identity: RunIdentity, plans: tuple[ShardPlan, ...]) -> None:
        self.paths = StorePaths(root)
        self.identity = identity
        self.plans = plans

    @contextmanager
    def started(self, *, overwrite: bool = False) -> Iterator[None]:
        """Make the folder ready and hold it, so that two runs never write the same data set.

        Raises PlanError where it holds something else, another configuration, or a run at work.
        """
        root = self.paths.root
        if root.exists() and not root.is_dir():
            raise PlanError(f"--out {root} is a file; give the folder that the data set goes to")
        # Of a run that was killed early the lock may be all there is, of one whose files somebody removed the
        # folder of its records.
        ours = self.paths.lock.is_file() or self.paths.done.is_dir()
        ours = ours or earlier_identity(self.paths) is not None
        if not ours and root.is_dir() and any(root.iterdir()):
            raise PlanError(f"{root} is not empty and is no data set of ours; choose another --out")
        check_links(self.paths)
        with locked(self.paths):
            earlier = earlier_identity(self.paths)
            lines = self.identity.differences(earlier) if earlier is not None else []
            if lines and not overwrite:
                raise PlanError(
                    f"{root} was prepared differently:\n  " + "\n  ".join(lines) + "\n"
                    "Repeat the earlier settings to continue it, choose another --out, "
                    "or give --overwrite to start again."
                )
            if overwrite or earlier is None:  # records of what nobody knows are of no use
                _remove_store(self.paths)
            self.paths.done.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            write_state(self.paths.identity, asdict(self.identity))
            yield

    def remove_manifest(self) -> None:
        """Take the manifest away while shards are being made again: a reader must not see half of each."""
        self.paths.manifest.unlink(missing_ok=True)

    def record(self, result: ShardResult) -> None:
        """Mark a shard as finished. Its files are in place already."""
        write_record(self.paths, result)

    def todo(self, *, retry_rejects: bool = False) -> dict[str, list[str]]:
        """Shards that are to be made, by name, each with what became of an earlier one; [] for a new shard.

        A shard is made again where a file of it is missing or damaged, where a reject was transient, or, with
        `retry_rejects`, where it has any, and where a source is no longer the file that was read. A file of
        the recorded size and time counts as the same; where only the time is another its hash decides.
        """
        todo: dict[str, list[str]] = {}
        for plan in self.plans:
            record = read_record(self.paths, plan.name)
            if record is None:
                todo[plan.name] = []
                continue
            result, times = record
            root = self.paths.root
            reasons = [
                f"{entry.file} is missing or damaged"
                for entry in result.files
                if not entry.unchanged(root, times.get(entry.file))
            ]
            reasons += [
                f"{clip.source} has changed since it was prepared"
                for clip in plan.clips
                if (source := result.sources.get(clip.source)) and source.changed(clip.path)
            ]
            if reasons or any(reject.transient or retry_rejects for reject in result.rejects):
                todo[plan.name] = reasons
            elif times != file_times(self.paths, result):
                write_record(self.paths, result)  # a copied data set is hashed once, not at each start
        return todo

    def finish(self, layout_rejects: Sequence[Reject]) -> dict[str, Any]:
        """Write rejects.parquet and then the manifest; return the manifest.

        Raises RunError where a shard that was made is no longer there.
        """
        results = finished_shards(self.paths, [plan.name for plan in self.plans])
        kept = {r.name for r in results if all((self.paths.root / file.file).is_file() for file in r.files)}
        if lost := [plan.name for plan in self.plans if plan.name not in kept]:
            raise RunError(
                f"of {len(self.plans)} shards {len(lost)} are gone from {self.paths.root} ({lost[0]}, ...): "
                "something removed them while the run was at work; run the same command again"
            )
        rejects = [*layout_rejects, *(r for result in results for r in result.rejects)]
        rejects.sort(key=lambda r: (r.clip_id, r.source))
        columns = {name: [getattr(r, name) for r in rejects] for name in REJECT_SCHEMA.names}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns, schema=REJECT_SCHEMA), sink, write_page_checksum=True)
        write_atomic(self.paths.rejects, sink.getvalue().to_pybytes())
        return write_manifest(self.paths)

    def _remove_leftovers(self) -> None:
        """Remove what a killed run left half written: `<file>.<pid>.tmp` of a file that is ours."""
        paths = self.paths
        files = (paths.manifest, paths.rejects, paths.report, paths.identity, paths.extractor(""))
        names = {file.name for file in files}
        names |= {f"{plan.name}{suffix}" for plan in self.plans for suffix in (".parquet", ".json")}
        folders = [paths.root, paths.root / "clips", paths.report.parent, paths.work, paths.done]
        folders += [*(paths.root / "features").glob("*"), *(paths.work / "features").glob("*")]
        for leftover in (file for folder in folders for file in folder.glob("*.tmp")):
            written = re.fullmatch(r"(.+)\.\d+\.tmp", leftover.name)
            if written and written[1] in names and leftover.is_file():
                leftover.unlink()


@contextmanager
def locked(paths: StorePaths) -> Iterator[None]:
    """Hold a data set's folder for writing. Raises PlanError while another run does."""
    paths.work.mkdir(parents=True, exist_ok=True)
    with paths.lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlanError(f"another run is writing {paths.root}; wait for it or stop it") from None
        yield


def _remove_store(paths: StorePaths) -> None:
    """Remove the files that the manifest or a completion record names, then the folders that are left empty.

    Nothing else below the folder is touched: what no record names may be someone's work.
    """
    features = {
        (extractor_id, result.name) for result in finished_shards(paths) for extractor_id in result.features
    }
    features |= {(path.parent.name, path.stem) for path in (paths.work / "features").glob("*/*.json")}
    shards = {result.name for result in finished_shards(paths)}
    with suppress(StoreError):  # a damaged manifest names nothing
        for shard in read_manifest(paths.root)["shards"]:
            shards.add(shard["name"])
            features |= {(extractor_id, shard["name"]) for extractor_id in shard["features"]}
    files = [paths.manifest, paths.rejects, paths.report, paths.identity]
    files += [file for shard in shards for file in (paths.clips(shard), paths.record(shard))]
    files += [file for f in features for file in (paths.features(*f), paths.feature_record(*f))]
    files += [file for e, _ in features for file in (paths.extractor(e), paths.loader(e))]
    for file in files:
        file.unlink(missing_ok=True)
    for folder in sorted({file.parent for file in files}, key=lambda f: -len(f.parts)):
        with suppress(OSError):  # missing, or it still holds something
            folder.rmdir()
