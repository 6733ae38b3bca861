"""Commands are stopped in peace while their modules load, and as usual afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

LOADED = """
import os, signal
{loading}
def main():
    print(signal.getsignal(signal.SIGINT) is {handler})
"""


def start(folder: Path, loading: str, handler: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """A command whose module does this while it loads; it says whether Ctrl-C is then handled so."""
    (folder / "loaded.py").write_text(LOADED.format(loading=loading, handler=handler))
    code = f"import signal; {before}\nfrom syncdiff.pipeline.start import start\nstart('loaded')"
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_ctrl_c_while_modules_load_prints_nothing(tmp_path: Path) -> None:
    done = start(tmp_path, "os.kill(os.getpid(), signal.SIGINT)", "None")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(
    ("before", "handler"),
    [("", "signal.default_int_handler"), ("signal.signal(signal.SIGINT, signal.SIG_IGN)", "signal.SIG_IGN")],
)
def test_afterwards_it_is_as_it_was(tmp_path: Path, before: str, handler: str) -> None:
    assert start(tmp_path, "", handler, before).stdout == "True\n"


def test_readers_are_loaded_when_they_are_asked_for() -> None:
    code = (
        "import sys, syncdiff.pipeline as p; print('pyarrow' in sys.modules, p.open_dataset.__name__);"
        "print([hasattr(p, name) for name in p.__all__], hasattr(p, 'nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "False open_dataset\n[True, True, True, True] False\n", done.stderr
