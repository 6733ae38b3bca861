"""The two containers of `torch.save`, zip archives and the older stream, opened without running anything.

What is inside comes out as plain data (`unpickle`), with a way to fetch the tensors one
wants; the others (optimiser states, say) are never read.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from syncdiff.pipeline.avhubert.pickle_objects import StorageRef, TensorRef, UnpickleError, storage_id
from syncdiff.pipeline.avhubert.unpickle import unpickle
from syncdiff.pipeline.records import CheckpointError

MAX_PICKLE_BYTES = 1 << 28
# torch.serialization: MAGIC_NUMBER and PROTOCOL_VERSION, the first two pickles of the older format
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class TorchFile:
    """An open container: `content` is plain data, tensors as `TensorRef`; `kind` torch-zip or
    torch-legacy."""

    path: Path
    kind: str
    content: Any
    _storages: _Storages

    def tensor(self, ref: TensorRef) -> Tensor:
        """The tensor, in the type it was stored in; tensors that share a storage in the file share it
        here."""
        return self._storages.base(ref.storage).as_strided(ref.shape, ref.stride, ref.offset)


@contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """Opens what `torch.save` wrote; raises CheckpointError for all else and for what tries to run code."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
            file.seek(0)
            if head.startswith(b"PK"):
                with zipfile.ZipFile(file) as archive:
                    yield _open_zip(path, archive)
            elif head[:1] == b"\x80":
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    yield _open_legacy(path, data)
            else:
                raise CheckpointError(f"{path} is no PyTorch checkpoint: {_what_is(head)}")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnpickleError, zipfile.BadZipFile, EOFError, struct.error) as error:
        raise CheckpointError(f"{path} cannot be read as a PyTorch checkpoint: {error}") from error


class _Storages:
    """Storages by key, each read once, when first asked for."""

    def __init__(self) -> None:
        self._read: dict[str, Tensor] = {}

    def base(self, ref: StorageRef) -> Tensor:
        dtype = _DTYPES.get(ref.type_name)
        if dtype is None:
            raise CheckpointError(f"tensors of type {ref.type_name} are not read here")
        if ref.key not in self._read:
            expected = ref.numel * dtype.itemsize
            data = self._bytes(ref, expected)
            if len(data) != expected:
                raise UnpickleError(
                    f"storage {ref.key} holds {len(data)} bytes where {expected} are declared"
                )
            self._read[ref.key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        base = self._read[ref.key]
        if base.dtype != dtype or base.numel() != ref.numel:
            raise UnpickleError(f"storage {ref.key} is declared twice, in two ways")
        return base

    def _bytes(self, ref: StorageRef, expected: int) -> bytearray:
        raise NotImplementedError


class _ZipStorages(_Storages):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__()
        self._archive, self._root = archive, root

    def _bytes(self, ref: StorageRef, expected: int) -> bytearray:
        return bytearray(_read_member(self._archive, f"{self._root}data/{ref.key}", expected))


class _LegacyStorages(_Storages):
    """In the older stream storages lie one behind another, each behind its element count (int64)."""

    def __init__(self, data: mmap.mmap, seen: dict[str, StorageRef]) -> None:
        super().__init__()
        self._data, self._seen = data, seen
        self._spans: dict[str, tuple[int, int]] = {}

    def locate(self, keys: Any) -> None:
        position = self._data.tell()
        for key in keys:
            if key not in self._seen or self._seen[key].type_name not in _DTYPES:
                raise UnpickleError(f"storage {key} has no known type")
            (numel,) = struct.unpack("<q", self._data[position : position + 8])
            length = numel * _DTYPES[self._seen[key].type_name].itemsize
            if numel < 0 or position + 8 + length > len(self._data):
                raise UnpickleError("the file ends within its numbers: it is cut short")
            self._spans[key] = (position + 8, length)
            position += 8 + length

    def _bytes(self, ref: StorageRef, expected: int) -> bytearray:
        if ref.key not in self._spans:
            raise UnpickleError(f"storage {ref.key} is missing")
        start, length = self._spans[ref.key]
        return bytearray(self._data[start : start + length])


def _open_zip(path: Path, archive: zipfile.ZipFile) -> TorchFile:
    pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{path} is a zip archive, but not one that torch.save wrote (no data.pkl in it)"
        )
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in archive.namelist():
        raise CheckpointError(f"{path} is a TorchScript program, not a checkpoint")
    if f"{root}byteorder" in archive.namelist() and _read_member(archive, f"{root}byteorder") != b"little":
        raise CheckpointError(f"{path} was written on a big-endian machine; such files are not read here")
    storages = _ZipStorages(archive, root)
    content = unpickle(io.BytesIO(_read_member(archive, pickles[0])), storage_id)
    return TorchFile(path, "torch-zip", content, storages)


def _read_member(archive: zipfile.ZipFile, name: str, expected: int | None = None) -> bytes:
    """A member's bytes, checksum verified; torch.save never compresses, so a compressed one may be a bomb."""
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise UnpickleError(f"{name} is missing from the archive") from None
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise UnpickleError(f"{name} is compressed or encrypted, which torch.save never does")
    expected = MAX_PICKLE_BYTES if expected is None else expected
    if member.file_size > expected:
        raise UnpickleError(f"{name} holds {member.file_size} bytes where at most {expected} make sense")
    return archive.read(member)


def _open_legacy(path: Path, data: mmap.mmap) -> TorchFile:
    stream: BinaryIO = data  # type: ignore[assignment]  # it reads like a file, and never more than there is
    if unpickle(stream) != _LEGACY_MAGIC or unpickle(stream) != _LEGACY_PROTOCOL:
        raise CheckpointError(f"{path} is a pickle, but not one that torch.save wrote")
    system = unpickle(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError(f"{path} was written on a big-endian machine; such files are not read here")
    seen: dict[str, StorageRef] = {}

    def persistent_load(identifier: tuple[Any, ...]) -> Any:
        if identifier[:1] == ("module",):  # (class, file, source code) of a pickled module
            return identifier[1]
        ref = storage_id(identifier)
        return seen.setdefault(ref.key, ref)

    content = unpickle(stream, persistent_load)
    keys = unpickle(stream)
    storages = _LegacyStorages(data, seen)
    storages.locate(keys if isinstance(keys, list) else [])
    return TorchFile(path, "torch-legacy", content, storages)


def _what_is(head: bytes) -> str:
    """A guess at a foreign file, from its first 64 bytes."""
    known = {
        b"": "it is empty",
        b"\xff\xd8\xff": "it is a JPEG picture",
        b"\x89PNG": "it is a PNG picture",
        b"\x1f\x8b": "it is gzip-compressed; unpack it first",
        b"version https://git-lfs": "it is a Git LFS pointer; fetch the file itself",
        b"<!DOCTYPE": "it is a web page, perhaps saved in place of the download",
        b"<html": "it is a web page, perhaps saved in place of the download",
    }
    for magic, description in known.items():
        if head == magic or (magic and head.lower().startswith(magic.lower())):
            return description
    return "it begins with neither a zip archive nor a pickle"
