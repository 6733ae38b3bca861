"""Parquet files of a store, read with their page checksums verified; one that is damaged is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from syncdiff.pipeline.store.paths import StoreError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn whatever is wrong with a file into a StoreError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}); `syncdiff-prep verify DATA --repair` makes damaged files again"
        ) from error


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """The file, open as long as the block lasts. Raises StoreError, with its name, where it is damaged."""
    with naming(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        yield file
