"""Checking a data set on disk against its manifest: nothing lost or changed, rows and features in step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.store.manifest import finished_shards, gather_manifest
from syncdiff.pipeline.store.paths import StoreError, StorePaths, read_manifest
from syncdiff.pipeline.store.schema import CLIP_SCHEMA, REJECT_SCHEMA, check_version

_NOT_PER_FRAME = ("words",)


def verify(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each file of the data set with what is wrong with it (an empty list where nothing is).

    Raises StoreError where there is no finished data set.
    """
    paths = StorePaths(root)
    manifest = read_manifest(root)
    whole = True
    for name, problems in _files(paths, manifest):
        whole = whole and not problems
        yield name, problems
    if whole and paths.done.is_dir():  # with damaged files the records would give another manifest
        gathered = json.loads(json.dumps(gather_manifest(paths)))
        wrong = [key for key in gathered.keys() | manifest.keys() if gathered.get(key) != manifest.get(key)]
        yield paths.manifest.name, [f"{key} is not what the records say" for key in sorted(wrong)]


def _files(paths: StorePaths, manifest: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    root = paths.root
    for shard in manifest["shards"]:
        clips = shard["clips"]
        problems = check_file(root, clips)
        if not problems:
            problems = _check_clips(root / clips["file"], clips["rows"])
        yield clips["file"], problems
        for entry in shard["features"].values():
            wrong = check_file(root, entry)
            if not wrong and not problems:
                wrong = _check_features(root / entry["file"], root / clips["file"])
            yield entry["file"], wrong
    for extractor_id in manifest["features"]:
        file = paths.extractor(extractor_id).relative_to(root).as_posix()
        entry = manifest.get("extractors", {}).get(extractor_id, {})  # older data sets have no hash of it
        yield file, check_file(root, {**entry, "file": file})
    wrong = check_file(root, {**manifest["rejects"], "file": paths.rejects.name})
    if not wrong:
        table = pq.read_table(paths.rejects)
        wrong = _check_schema(table.schema, REJECT_SCHEMA, paths.rejects)
        counted = sum(split["rejects"] for split in manifest["counts"]["splits"].values())
        wrong += [f"{table.num_rows} rows, counted were {counted}"] if table.num_rows != counted else []
    yield paths.rejects.name, wrong
    named = {e["file"] for shard in manifest["shards"] for e in (shard["clips"], *shard["features"].values())}
    present = {
        p.relative_to(root).as_posix() for f in ("clips", "features") for p in (root / f).rglob("*.parquet")
    }
    yield "(other files)", [f"not in the manifest: {name}" for name in sorted(present - named)]


def forget(root: Path, damaged: Set[str]) -> list[str]:
    """Take away the completion records of these files, so that they count as never made.

    What was prepared together is made together: a shard's clips and the features made with them. Returns the
    extractors whose features were added later, of which some were among the files. Raises StoreError where
    the data set has no records.
    """
    paths = StorePaths(root)
    if not paths.done.is_dir():
        raise StoreError(f"{root} cannot be mended: its folder .work is missing; prepare it again")
    for result in finished_shards(paths):
        if damaged & {entry.file for entry in result.files}:
            paths.record(result.name).unlink()
    added = set()
    for record in (paths.work / "features").glob("*/*.json"):
        extractor_id, shard = record.parent.name, record.stem
        if paths.features(extractor_id, shard).relative_to(root).as_posix() in damaged:
            record.unlink()
            added.add(extractor_id)
        elif paths.extractor(extractor_id).relative_to(root).as_posix() in damaged:
            added.add(extractor_id)  # it is written anew before the features are looked at
    return sorted(added)


def check_file(root: Path, entry: dict[str, Any]) -> list[str]:
    """What is wrong with a file by its recorded size and hash, where they are recorded."""
    path = root / entry["file"]
    if not path.is_file():
        return ["missing"]
    size = path.stat().st_size
    if size != entry.get("bytes", size):
        return [f"{size} bytes, recorded were {entry['bytes']}"]
    same = entry.get("sha256") is None or sha256_file(path) == entry["sha256"]
    return [] if same else ["content changed (sha256 differs)"]


def _check_clips(path: Path, rows: int) -> list[str]:
    file = pq.ParquetFile(path)
    problems = _check_schema(file.schema_arrow, CLIP_SCHEMA, path)
    if problems:
        return problems
    if file.metadata.num_rows != rows:
        problems.append(f"{file.metadata.num_rows} rows, recorded were {rows}")
    lists = [f.name for f in CLIP_SCHEMA if pa.types.is_list(f.type) and f.name not in _NOT_PER_FRAME]
    for group in range(file.metadata.num_row_groups):
        frames = file.read_row_group(group, columns=["clip_id", "num_frames"])
        for name in lists:
            lengths = pc.list_value_length(file.read_row_group(group, columns=[name]).column(0))
            wrong = pc.fill_null(pc.not_equal(lengths, frames["num_frames"]), False)
            for clip_id in frames["clip_id"].filter(wrong).to_pylist():
                problems.append(f"{clip_id}: {name} is not as long as the clip")
    return problems


def _check_features(path: Path, clips_path: Path) -> list[str]:
    file = pq.ParquetFile(path)
    try:
        check_version(file.schema_arrow, path)
    except ValueError as error:
        return [str(error)]
    ours = file.read(columns=["clip_id", "num_frames"])
    theirs = pq.read_table(clips_path, columns=["clip_id", "num_frames"])
    for name in ("clip_id", "num_frames"):
        if not ours[name].equals(theirs[name]):
            return [f"{name} differs from the clip shard row by row"]
    rate = float((file.schema_arrow.metadata or {}).get(b"syncdiff.rate_hz", b"nan"))
    if rate != 25.0:
        return []
    problems = []
    for group in range(file.metadata.num_row_groups):
        table = file.read_row_group(group, columns=["clip_id", "num_frames", "values"])
        wrong = pc.fill_null(pc.not_equal(pc.list_value_length(table["values"]), table["num_frames"]), False)
        problems += [
            f"{clip_id}: not one step a frame" for clip_id in table["clip_id"].filter(wrong).to_pylist()
        ]
    return problems


def _check_schema(written: pa.Schema, wanted: pa.Schema, path: Path) -> list[str]:
    try:
        check_version(written, path)
    except ValueError as error:
        return [str(error)]
    if written.equals(wanted):
        return []
    shared = [name for name in wanted.names if name in written.names]
    changed = [name for name in shared if written.field(name).type != wanted.field(name).type]
    return [f"column {n} is {written.field(n).type}" for n in changed] or ["columns differ from the schema"]
