"""Starts Ray on this machine, out of others' reach, or joins a cluster; clears up after killed runs.

Imported before Ray is: some of Ray's settings count only if they stand when it is imported.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from syncdiff.pipeline.records import RunError

CONNECT_S = 5.0  # a cluster that is there answers in milliseconds
HELPER_EXIT_S = 5.0  # for killed processes to let go of the files that are removed next
SOCKET_PATH_BYTES = 107  # what the system allows
# the longest name that Ray gives a socket below its folder
SOCKET_NAME_BYTES = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
# Waits for its driver's end, of which it hears by the pipe between them, and for what ends by itself. Python
# would look for modules in the working folder first, which may be anybody's.
CLEAR_UP = """
import sys, time
sys.path[:] = filter(None, sys.path)
sys.stdin.read()
time.sleep(1)
from syncdiff.pipeline.ray_start import sessions_folder
sessions_folder()
"""
# Nothing large passes through the object store, so it gets the smallest size Ray accepts.
OBJECT_STORE_BYTES = 80 << 20


def connect(workers: int | None, address: str | None) -> None:
    """Start Ray on this machine's cores, or join a running cluster. Raises RunError.

    A local Ray listens at the loopback address alone: whoever reaches it may run code, and is asked nothing.
    """
    if address:
        check_reachable(address)
    else:
        # Ray's switch for "no cluster", named after the systems on which that is the default. It alone makes
        # all of Ray's servers bind to the loopback address (Ray 2.60 replaces a node address of 127.0.0.1).
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # Else Ray reports to its makers what it is used for.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    # Ray ends its processes when ours exits; a signal in that half second would only print a traceback.
    for number in (signal.SIGINT, signal.SIGTERM):
        atexit.register(signal.signal, number, signal.SIG_IGN)
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            clear_up_afterwards()
            ray.init(
                address="local",  # never a cluster that happens to run here
                num_cpus=workers,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(sessions_folder()),
                # Else the driver waits for workers started ahead of need, and for ever if one dies first.
                _system_config={"prestart_worker_first_driver": False},
                **quiet,
            )
    except Exception as error:  # bare ones too: Ray has no class for a server of its own that died or is late
        raise RunError(f"could not start or join Ray: {type(error).__name__}: {error}; run again") from error


def check_reachable(address: str) -> None:
    """Raise RunError unless something listens at host:port (Ray itself would try for minutes)."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", "local": Ray answers these at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise RunError(f"no Ray cluster answers at {address} ({error}); check --ray-address") from error


def sessions_folder() -> Path:
    """Where our local Rays keep their sockets and logs, cleared of runs that have ended. Raises RunError.

    Ray leaves each session's folder behind, and a driver that was killed leaves helper processes as well.
    """
    folder = Path(tempfile.gettempdir()) / f"syncdiff-ray-{os.getuid()}"
    if len(os.fsencode(folder)) + SOCKET_NAME_BYTES > SOCKET_PATH_BYTES:  # clusters have long TMPDIRs
        folder = Path("/tmp") / folder.name
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if state.st_uid != os.getuid() or not stat.S_ISDIR(state.st_mode):
        raise RunError(f"{folder} belongs to somebody else; remove it, or set TMPDIR to a folder of your own")
    for session in folder.glob("session_*_*"):
        driver = session.name.rpartition("_")[2]  # Ray ends the name with its process id
        if driver.isdigit() and not session.is_symlink() and not is_running(int(driver)):
            end_helpers(session)
            shutil.rmtree(session, ignore_errors=True)
    return folder


def is_running(pid: int) -> bool:
    """Whether a process is there; one that has ended, and that nobody has asked after yet, is not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def clear_up_afterwards() -> None:
    """Start a process that clears up after this one, which may be killed before it can do so itself."""
    reading, _writing = os.pipe()  # the second is closed by nothing but our own end
    command, quiet = [sys.executable, "-c", CLEAR_UP], subprocess.DEVNULL
    subprocess.Popen(command, stdin=reading, stdout=quiet, stderr=quiet, start_new_session=True)
    os.close(reading)


def end_helpers(session: Path) -> None:
    """Kill what still runs of a session: processes that name its folder or have a file open in it."""
    helpers = []
    for process in psutil.process_iter():
        try:
            names = [*process.cmdline(), *(file.path for file in process.open_files())]
        except psutil.Error:
            continue
        if any(str(session) in name for name in names):
            helpers.append(process)
    for helper in helpers:
        with suppress(psutil.NoSuchProcess):
            helper.kill()
    psutil.wait_procs(helpers, timeout=HELPER_EXIT_S)
