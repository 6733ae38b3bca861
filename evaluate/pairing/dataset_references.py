"""References from a prepared data set: rows as videos, pixel by pixel what the data set holds.

A row's face crops and sound are written as lossless video beside the cache, when they are first needed. With
the raw data at hand (for results that are full pictures) the reference is the source file; where a row is a
part of a longer source, that part of it, lossless too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from syncdiff.evaluate.pairing.groups import Groups
from syncdiff.pipeline.datasets.listing import source_path
from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.media.read import open_video, read_audio
from syncdiff.pipeline.media.write import LOSSLESS, write_video
from syncdiff.pipeline.records import SAMPLES_PER_FRAME, U8, ClipError
from syncdiff.pipeline.store.read import ClipView, Dataset, open_dataset

RENDERING = 1  # raised when the same row would give another file
_KEY_DIGITS = 12
_COLUMNS = (
    "clip_id", "source", "source_sha256", "start_frame", "num_frames", "speaker_id", "transcript",
)  # fmt: skip


@dataclass(frozen=True)
class StoredClip:
    """A row that is to be written as a video. source: its part of a raw file instead of its crops."""

    store: Path
    clip_id: str
    source: Path | None = None
    source_sha256: str | None = None
    start_frame: int = 0
    num_frames: int = 0


@dataclass(frozen=True)
class StoredReferences:
    """Clip name -> file. `rows` says how to write those files that are not there yet; `transcripts`, what is
    said in them.

    groups: clip name -> speaker, or -> source video where the data set does not know all speakers.
    """

    videos: dict[str, Path]
    rows: dict[Path, StoredClip]
    groups: Groups
    transcripts: dict[Path, str]


def short_name(clip_id: str) -> str:
    """A clip's id without layout and split: the name that `syncdiff-generate` gives its result."""
    return clip_id.split("/", 2)[-1]


def list_stored(
    store: Path, folder: Path, *, split: str | None = None, raw: Path | None = None
) -> StoredReferences:
    """References for all rows of a data set, or of one split; files go to `folder`. Nothing is written yet.

    Names are those of `syncdiff-generate`: ids without layout and split, or whole ids where these are not
    unique. Raises StoreError where there is no such data set or split.
    """
    dataset = open_dataset(store, split)
    hashes = _shard_hashes(dataset)
    rows = dataset.table(_COLUMNS).to_pylist()
    names = [short_name(row["clip_id"]) for row in rows]
    if len(set(names)) < len(names):
        names = [row["clip_id"] for row in rows]
    unit, column = (
        ("speaker", "speaker_id") if all(r["speaker_id"] for r in rows) else ("source video", "source")
    )
    groups = {name: row[column] for name, row in zip(names, rows, strict=True)}
    references = StoredReferences({}, {}, Groups(groups, unit), {})
    for index, (name, row) in enumerate(zip(names, rows, strict=True)):
        whole = raw is not None and not row["start_frame"]
        if raw is not None and whole:
            references.videos[name] = source_path(raw, row["source"])
            _note_transcript(references, name, row["transcript"])
            continue
        clip = StoredClip(store, row["clip_id"])
        key = [str(RENDERING), row["clip_id"], hashes[dataset[index].shard]]
        if raw is not None:
            source = source_path(raw, row["source"])
            sha256, start, frames = row["source_sha256"], row["start_frame"], row["num_frames"]
            clip = StoredClip(store, row["clip_id"], source, sha256, start, frames)
            key += ["raw", sha256]
        digest = hashlib.sha256("\n".join(key).encode()).hexdigest()[:_KEY_DIGITS]
        path = folder / f"{name}.{digest}.mkv"
        references.videos[name] = path
        references.rows[path] = clip
        _note_transcript(references, name, row["transcript"])
    return references


def _note_transcript(references: StoredReferences, name: str, transcript: str | None) -> None:
    if transcript:
        references.transcripts[references.videos[name]] = transcript


def write_stored(clip: StoredClip, path: Path) -> None:
    """Write a row as a video unless it is there; the file appears whole or not at all.

    Raises ClipError("pair", "other-source") where a raw file is not the one that was prepared, and as
    `open_video` does.
    """
    if path.is_file():
        return
    if clip.source is None:
        row = _dataset(clip.store).by_id(clip.clip_id)
        write_video(path, _crops(row), row.audio(), LOSSLESS)
        return
    try:
        sha256 = sha256_file(clip.source)
    except OSError as error:
        raise ClipError("pair", "no-source", f"{clip.source}: {error.strerror or error}") from error
    if sha256 != clip.source_sha256:
        raise ClipError("pair", "other-source", f"{clip.source} is not the file that was prepared")
    sound = read_audio(clip.source)
    first, last = clip.start_frame, clip.start_frame + clip.num_frames
    if sound is not None:
        sound = sound[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME]
    write_video(path, _span(clip.source, first, last), sound, LOSSLESS)


@lru_cache(maxsize=2)
def _dataset(store: Path) -> Dataset:
    return open_dataset(store)


def _shard_hashes(dataset: Dataset) -> dict[str, str]:
    return {shard["name"]: shard["clips"]["sha256"] for shard in dataset.manifest["shards"]}


def _crops(row: ClipView) -> Iterator[U8]:
    return (row.frames([index])[0] for index in range(row.num_frames))


def _span(source: Path, first: int, last: int) -> Iterator[U8]:
    number = 0
    for chunk in open_video(source).chunks():
        yield from chunk[max(0, first - number) : max(0, last - number)]
        number += len(chunk)
        if number >= last:
            return
