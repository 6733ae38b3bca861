"""What all tests share: where the optional folders are, and small helpers to make media."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

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


@pytest.fixture(scope="session")
def media() -> ModuleType:
    """The module media_factory.py, which writes media with known contents."""
    spec = importlib.util.spec_from_file_location("media_factory", ROOT / "tests" / "media_factory.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
