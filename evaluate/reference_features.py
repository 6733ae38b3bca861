"""Network features of references, kept on disk by content: several methods are compared with the same clips.

A picture's features depend on its bytes and on the network alone, so they are found by a hash of those bytes,
whichever method, pairing or run asks. The folder's name stands for the network, its weights and all versions.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Item: TypeAlias = tuple[NDArray[Any], ...]
"""All that a row of features is computed from: a picture, or a frame and its landmarks."""
DIGEST_BYTES = 16
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class ReferenceFeatures:
    """folder: where they are kept, None to keep nothing."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def of(self, items: Iterable[Item], compute: Callable[[Iterator[Item]], NDArray[Any]]) -> NDArray[Any]:
        """Features [n,D] of the items, in their order; `compute` gets those that are not known yet.

        Items of a clip share a file that is named after the first. What cannot be read or written is
        computed: figures never depend on it.
        """
        stream = iter(items)
        first = next(stream, None)
        if first is None or self._folder is None:
            return compute(chain([] if first is None else [first], stream))
        path = self._folder / f"{_digest(first).hex()}.npz"
        rows = _load(path)
        stored, order, new = len(rows), list[bytes](), list[bytes]()

        def unknown() -> Iterator[Item]:
            for item in chain([first], stream):
                order.append(_digest(item))
                if order[-1] not in rows and order[-1] not in new:
                    new.append(order[-1])
                    yield item

        rows |= dict(zip(new, compute(unknown()), strict=False))
        if len(rows) > stored:
            _save(path, rows)
        return np.stack([rows[digest] for digest in order])


def _digest(item: Item) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for array in item:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _load(path: Path) -> dict[bytes, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as entry:
            digests, features = entry["digests"], entry["features"]
        return {digest.tobytes(): row for digest, row in zip(digests, features, strict=True)}
    except _UNREADABLE:
        return {}


def _save(path: Path, rows: dict[bytes, NDArray[Any]]) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    digests = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), DIGEST_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, digests=digests, features=np.stack(list(rows.values())))
        part.replace(path)
    except OSError:  # a full disk shows where statistics are kept, which must not be lost
        with suppress(OSError):
            part.unlink(missing_ok=True)
