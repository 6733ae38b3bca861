"""Commands that are disturbed while they run, and what must hold afterwards. Linux only: it reads /proc."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

Argv = list[str | Path]
MARK = "SYNCDIFF_FAULT_MARK"
GONE_WITHIN_S = 60.0
PATIENCE_S = 900.0  # a busy machine is no fault


@dataclass
class Row:
    """A line of the closing table: how often a fault was tried, survived, and what was lost."""

    fault: str
    seed: int
    tried: int = 0
    survived: int = 0
    lost: list[str] = field(default_factory=list)

    def count(self, problem: str = "") -> None:
        self.tried += 1
        if problem:
            self.lost.append(problem)
        else:
            self.survived += 1


def executable(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def tree(root: Path) -> dict[str, str]:
    """Relative name -> hash of every file that a user sees below a folder (hidden folders are ours)."""
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and not any(part.startswith(".") for part in p.relative_to(root).parts)
    }


def difference(wanted: dict[str, str], got: dict[str, str]) -> str:
    """Names that are missing, too many or of other content; empty where the trees are equal."""
    names = sorted(n for n in wanted.keys() | got.keys() if wanted.get(n) != got.get(n))
    return ", ".join(names)


class Command:
    """A command in a process group of its own; what it starts is found by a mark in the environment."""

    def __init__(self, *arguments: str | Path, cwd: Path | None = None, **environment: str) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [str(a) for a in arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=cwd,
            env={**os.environ, **environment, MARK: self.mark},
            start_new_session=True,
            # a shell that runs the tests in the background has them ignore Ctrl-C, and all that they start
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def processes(self, kind: str = "") -> list[int]:
        """Ids of the running processes it started, itself left out, whose command line holds `kind`."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == self.process.pid:
                continue
            try:
                marked = f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes()
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                ended = (folder / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            except OSError:
                continue
            if marked and kind in line and not ended:
                found.append(int(folder.name))
        return found

    def end(self, timeout_s: float = PATIENCE_S) -> tuple[int, str]:
        """Wait; exit code and all it printed. A command that hangs is killed and told apart by code -999."""
        try:
            said, _ = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            said, _ = self.process.communicate()
            return -999, said
        return self.process.returncode, said

    def lines(self, pids: list[int]) -> str:
        """The beginnings of the command lines of processes."""
        found = []
        for pid in pids:
            with suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[:80].decode())
        return "; ".join(found)

    def left_over(self) -> list[int]:
        """Processes still alive a while after the command ended."""
        deadline = time.monotonic() + GONE_WITHIN_S
        while (alive := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return alive


def run(
    *arguments: str | Path, timeout_s: float = PATIENCE_S, cwd: Path | None = None, **environment: str
) -> tuple[int, str]:
    """Run a command undisturbed; exit code and what it said. No traceback may ever be seen."""
    return Command(*arguments, cwd=cwd, **environment).end(timeout_s)


@contextmanager
def seconds() -> Iterator[list[float]]:
    """A list that holds, afterwards, how long the block took."""
    begun, taken = time.monotonic(), [0.0]
    yield taken
    taken[0] = time.monotonic() - begun
