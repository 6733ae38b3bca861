"""What all tests share: where the optional folders are, and small helpers to make media."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _shared(name: str, variable: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"{name} not found beside the checkout; set {variable} to its folder")
    return folder


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder with the real clips."""
    return _shared("realdata", "SYNCDIFF_REALDATA") / "videos"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with values computed by the original programs."""
    return _shared("golden", "SYNCDIFF_GOLDEN")


@pytest.fixture(scope="session")
def reference_weights() -> Path:
    """Folder with real weights that only tests may use (LPIPS check)."""
    return _shared("weights", "SYNCDIFF_TEST_WEIGHTS")
