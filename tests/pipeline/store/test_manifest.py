"""What is on record of a finished shard and of the sources it was made of."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.store.manifest import SourceFile, read_state, write_state
from syncdiff.pipeline.store.paths import StoreError


def test_a_state_file_is_read_whole_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_state(path, {"b": 1, "a": ["x", None]})
    assert read_state(path) == {"a": ["x", None], "b": 1}
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"b": 1', b'"b": 2'))
    with pytest.raises(StoreError, match=r"a\.json is damaged"):
        read_state(path)
    path.write_bytes(whole[:-9])
    with pytest.raises(StoreError, match=r"a\.json is damaged"):
        read_state(path)
    path.write_text('{"b": 1}')  # of an older version
    assert read_state(path) == {"b": 1}


def test_a_source_is_known_by_size_time_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"video")
    status = path.stat()
    seen = SourceFile(status.st_size, status.st_mtime_ns, sha256_file(path))
    assert not seen.changed(path)
    os.utime(path, ns=(0, 0))
    assert not seen.changed(path)  # copied
    assert replace(seen, sha256=None).changed(path)  # rejected then; perhaps it is good now
    path.write_bytes(b"VIDEO")
    assert seen.changed(path)
    path.write_bytes(b"another video")
    assert seen.changed(path)
    path.unlink()
    assert not seen.changed(path)
