"""Every benchmark starts and explains itself; what it measures is not for tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.mark.long
@pytest.mark.parametrize("script", sorted(path.name for path in FOLDER.glob("*.py")))
def test_it_says_what_it_does(script: str) -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / script, "--help"], capture_output=True, text=True, check=False, cwd=FOLDER
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout or script == "sample_store.py"
