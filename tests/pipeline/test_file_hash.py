"""One streamed hash: that of the standard library, of one file or of several in a row."""

from __future__ import annotations

import hashlib
from pathlib import Path

from syncdiff.pipeline.file_hash import sha256_file


def test_it_is_the_sha256_of_the_bytes_in_a_row(tmp_path: Path) -> None:
    first, second = bytes(range(256)) * 5000, b"tail"  # more than one piece
    (tmp_path / "a").write_bytes(first)
    (tmp_path / "b").write_bytes(second)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(first).hexdigest()
    assert sha256_file(tmp_path / "a", tmp_path / "b") == hashlib.sha256(first + second).hexdigest()
