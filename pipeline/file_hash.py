"""The hash by which a file is known: the same sum everywhere, for shards, sources, weights and caches."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_file(*paths: Path) -> str:
    """Hex SHA-256 of a file, or of several as if they were one, read in 1 MiB pieces."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
