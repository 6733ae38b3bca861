"""Statistics of clips, kept by content: what was computed from the same bytes in the same way is kept.

An entry's name is a hash of everything that its content depends on: the bytes of the generated video, of the
reference and of the sound; the metric, its version and settings; the bytes of its weights; the versions of
the programs between a file and its statistics; and the kind of device. A change in any of these is another
name, so nothing stale is ever served, and entries of an earlier state are found again when it comes back.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from syncdiff.evaluate.metrics.base import Statistics
from syncdiff.evaluate.records import Case
from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.media.probe import probe
from syncdiff.pipeline.records import ClipError

FORMAT = 2  # raised whenever all metrics see other pictures or sound: 2 pairs pictures by index
PASSING_REASONS = ("pipeline-failed",)  # an ffmpeg of `syncnet-tracks`, which writes files
_ERROR = "__error__"
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RecursionError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Key:
    """What an entry depends on; `folder` groups entries for people who look at the cache."""

    folder: str
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Hex SHA-256 of the facts."""
        text = json.dumps({"format": FORMAT, **self.facts}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Cache:
    """Entries in files of their own below a folder, each written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: Key) -> Path:
        name = key.name
        return self.folder / key.folder / name[:2] / f"{name}.npz"

    def load(self, key: Key) -> Statistics | ClipError | None:
        """What is kept under a key; None where there is nothing, or it is damaged."""
        return load_entry(self.path(key))

    def save(self, key: Key, content: Statistics | ClipError) -> Path:
        """Keep statistics, or the reason why there are none. Raises OSError."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            with part.open("wb") as file:
                np.savez(file, **_arrays(content))
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path


def is_lasting(error: ClipError) -> bool:
    """Whether a failure comes from what is in the files, so that it may be kept with them.

    Not kept is what may be otherwise at the next try: a failure of the machine (memory of the CPU or GPU,
    disk, a process that was ended) behind the error, and everything that reading the media met, which
    ffmpeg's words do not tell apart and which is soon found again.
    """
    if error.transient or error.stage == "media" or error.reason in PASSING_REASONS:
        return False
    cause = error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, (OSError, MemoryError, RuntimeError)):  # PyTorch's and dlib's are RuntimeErrors
            return False
        cause = cause.__cause__ or cause.__context__
    return True


def load_entry(path: Path) -> Statistics | ClipError | None:
    """The content of an entry's file; None where it is not there, or damaged."""
    try:
        with np.load(path, allow_pickle=False) as entry:
            arrays = {name: entry[name] for name in entry.files}
        if _ERROR in arrays:
            stage, reason, detail = json.loads(arrays[_ERROR].tobytes())
            return ClipError(stage, reason, detail)
    except _UNREADABLE:
        return None
    return arrays


@dataclass(frozen=True)
class Inputs:
    """The files of a case as they were when hashed: role -> SHA-256 (None: there is no such file)."""

    digests: Mapping[str, str | None]
    stamps: tuple[tuple[Path, int, int], ...]

    def unchanged(self) -> bool:
        """Whether the files are still as they were, by size and time of change."""
        try:
            return self.stamps == tuple(_stamp(path) for path, _, _ in self.stamps)
        except OSError:
            return False

    def with_transcript(self, text: str | None) -> Inputs:
        return replace(self, digests={**self.digests, "transcript": text})

    def without_reference(self) -> Inputs:
        return replace(self, digests={**self.digests, "reference": None})


def read_inputs(case: Case) -> Inputs:
    """Hash a case's files. Raises ClipError("media", ...) for one that cannot be read."""
    roles = {"generated": case.generated, "reference": case.reference, "sound": case.sound}
    paths = dict.fromkeys(path for path in roles.values() if path is not None)
    digests = {}
    stamps = []
    for path in paths:
        try:
            stamps.append(_stamp(path))
        except OSError:
            stamps.append((path, 0, 0))  # what is wrong with it is said below
        digests[path] = file_digest(path)
    by_role = {role: None if path is None else digests[path] for role, path in roles.items()}
    return Inputs(by_role, tuple(stamps))


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file's bytes. Raises ClipError("media", ...) for what is no readable file."""
    if not path.is_file():
        probe(path)  # says what it is instead
    try:
        return sha256_file(path)
    except OSError as error:
        raise ClipError("media", "read-error", f"{error.strerror or error}", transient=True) from error


def _stamp(path: Path) -> tuple[Path, int, int]:
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


def _arrays(content: Statistics | ClipError) -> dict[str, Any]:
    if isinstance(content, ClipError):
        text = json.dumps([content.stage, content.reason, content.detail])
        return {_ERROR: np.frombuffer(text.encode(), np.uint8)}
    for name, array in content.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"statistics must be plain arrays; {name} holds objects")
    return dict(content)
