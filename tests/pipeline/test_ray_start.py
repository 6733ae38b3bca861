"""What runs that were killed leave behind is cleared away on the next start, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from syncdiff.pipeline.ray_start import sessions_folder
from syncdiff.pipeline.records import RunError


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder with a name short enough for sockets, which pytest's own has not."""
    with tempfile.TemporaryDirectory(prefix="sd-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)


@pytest.fixture
def folder(short: Path) -> Path:
    """Where sessions will lie."""
    return sessions_folder()


def ended_process() -> int:
    """The id of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_dead_drivers_session_and_helpers_go(folder: Path) -> None:
    session = folder / f"session_2026-01-01_{ended_process()}"
    session.mkdir()
    (session / "log").touch()
    code = "import sys, time; log = open(sys.argv[1]); print('open', flush=True); time.sleep(120)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(session / "log")], stdout=subprocess.PIPE, text=True
    ) as helper:
        assert helper.stdout is not None and helper.stdout.readline() == "open\n"
        sessions_folder()
        helper.wait(timeout=10)  # by itself it would go on for two minutes
    assert not session.exists()


def test_a_living_drivers_session_stays(folder: Path) -> None:
    session = folder / f"session_2026-01-01_{os.getpid()}"
    session.mkdir()
    (folder / "notes").mkdir()
    sessions_folder()
    assert session.is_dir() and (folder / "notes").is_dir()


def test_a_link_put_there_by_somebody_else_is_refused(short: Path) -> None:
    (short / "elsewhere").mkdir()
    (short / f"syncdiff-ray-{os.getuid()}").symlink_to(short / "elsewhere")
    with pytest.raises(RunError, match="belongs to somebody else"):
        sessions_folder()


def test_no_worker_is_started_before_there_is_work() -> None:
    """The driver would wait for it for ever if it died before it had registered."""
    code = (
        "import time, psutil\n"
        "from syncdiff.pipeline.ray_start import connect\n"
        "connect(2, None)\n"
        "time.sleep(1)\n"
        "print([p.cmdline()[:1] for p in psutil.Process().children(recursive=True)])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "raylet" in done.stdout and "ray::IDLE" not in done.stdout, done.stdout + done.stderr


@pytest.mark.long  # Ray waits for half a minute
@pytest.mark.parametrize("server", ["gcs_server", "raylet"])
def test_a_server_of_rays_that_dies_while_it_starts_is_a_sentence(server: str) -> None:
    """Not a traceback, and not a wait for ever."""
    code = (
        "import sys, threading, time, psutil\n"
        "from syncdiff.pipeline.ray_start import connect\n"
        "def kill():\n"
        "    while True:\n"
        "        for process in psutil.Process().children():\n"
        "            if process.name() == sys.argv[1]:\n"
        "                return process.kill()\n"
        "        time.sleep(0.01)\n"
        "threading.Thread(target=kill, daemon=True).start()\n"
        "connect(1, None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, server], capture_output=True, text=True, timeout=300)
    assert done.returncode
    assert "RunError: could not start or join Ray" in done.stderr, done.stderr[-1500:]


def test_a_long_tmpdir_gives_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's path may have 107 bytes; those of clusters' job folders are longer."""
    deep = tmp_path / ("x" * 60)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    assert sessions_folder() == Path("/tmp") / f"syncdiff-ray-{os.getuid()}"


def test_after_a_killed_driver_nothing_is_left(short: Path) -> None:
    """Its processes and its folder go without another start."""
    code = (
        "import time\n"
        "from syncdiff.pipeline.ray_start import connect\n"
        "connect(1, None)\n"
        "print('connected', flush=True)\n"
        "time.sleep(120)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None and driver.stdout.readline() == "connected\n"
        assert list(short.glob("syncdiff-ray-*/session_*_*"))
        driver.kill()
    deadline = time.monotonic() + 30
    while list(short.glob("syncdiff-ray-*/session_*_*")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not list(short.glob("syncdiff-ray-*/session_*_*"))
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if any(str(short) in part for part in command)]
