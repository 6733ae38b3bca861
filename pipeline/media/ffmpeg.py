"""One ffmpeg process, watched: its output without copies, its log without growth, its end in any case.

Media are decoded in a process of their own and never in ours: a file made to crash or hang a decoder then
costs one clip and not a worker.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import imageio_ffmpeg

from syncdiff.pipeline.records import ClipError

STALL_S = 60.0  # generous: a slow share or one 8K picture on a busy core takes seconds
SOURCE = "source"  # stands for the input file in an ffmpeg-python graph
# Of a log the head holds the report and the first complaint, the tail what ended the process; a damaged file
# can fill gigabytes in between.
LOG_HEAD_BYTES = 256 * 1024
LOG_TAIL_BYTES = 16 * 1024
# The system ends what takes too much memory by SIGKILL.
ENDED_FROM_OUTSIDE = tuple(-sent for sent in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
READ_BYTES = 1024 * 1024


def ffmpeg_binary() -> str:
    """Path of the ffmpeg to run: the one on PATH, else the one that comes with imageio-ffmpeg."""
    return shutil.which("ffmpeg") or str(imageio_ffmpeg.get_ffmpeg_exe())


def ffmpeg_version(binary: str | None = None) -> str:
    """The version that the binary states of itself, such as "7.0.2-static"."""
    shown = subprocess.run(
        [binary or ffmpeg_binary(), "-version"], stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    return shown.stdout.decode("utf-8", "replace").split()[2]


def command_line(output: Any, source: Path, loglevel: str) -> list[str]:
    """Arguments that run the graph of an ffmpeg-python output node, with `source` in the place of SOURCE.

    The path is given as a `file:` address: whatever the name, it is neither an option nor another protocol.
    It does not pass through ffmpeg-python, which cannot hold a name that is not Unicode.
    """
    options = ("-hide_banner", "-nostdin", "-filter_complex_threads", "1", "-loglevel", loglevel)
    command = output.global_args(*options).compile(cmd=ffmpeg_binary())
    return [f"file:{source.absolute()}" if argument == SOURCE else argument for argument in command]


class FfmpegProcess:
    """A running ffmpeg, read by `read_into`. A context manager: leaving it ends the process.

    `stall_s`: raise ClipError("media", "decode-timeout") when the process gives no byte for so long while
    one is waited for.
    """

    def __init__(self, command: Sequence[str], *, stall_s: float = STALL_S) -> None:
        self._stall_s = stall_s
        self._log_head = bytearray()
        self._log_tail = bytearray()
        self._at_end = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=_environment(),
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        self._out = self._process.stdout.fileno()
        self._err = self._process.stderr.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)
        self._selector.register(self._err, selectors.EVENT_READ)

    def __enter__(self) -> FfmpegProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process if it still runs, and let go of its pipes. May be called again."""
        self._selector.close()
        if self._process.poll() is None:
            self._process.kill()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        # A process stuck in the kernel, for instance on a dead share, cannot even be killed.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10.0)

    @property
    def log(self) -> str:
        """What the process wrote to standard error: all of it, or the beginning and the end of a long one."""
        return (self._log_head + self._log_tail).decode("utf-8", "replace")

    def read_into(self, view: memoryview) -> int:
        """Fill `view` from standard output; fewer bytes than its length only at the end of the output.

        Raises ClipError("media", "decode-timeout").
        """
        filled = 0
        deadline = time.monotonic() + self._stall_s
        while filled < len(view) and not self._at_end:
            for key, _ in self._wait_until(deadline):
                if key.fd == self._err:
                    self._read_log()
                    continue
                count = os.readv(self._out, [view[filled:]])
                filled += count
                if count == 0:
                    self._end_output()
                deadline = time.monotonic() + self._stall_s
        return filled

    def read_all(self, limit_bytes: int) -> bytearray:
        """Everything that is left of standard output, up to `limit_bytes`. Raises as `read_into` does."""
        collected = bytearray()
        block = memoryview(bytearray(READ_BYTES))
        while len(collected) < limit_bytes:
            count = self.read_into(block[: min(len(block), limit_bytes - len(collected))])
            collected += block[:count]
            if count < len(block):
                break
        return collected

    def finish(self) -> int:
        """Read the log to its end and return the process's exit status, once the output has been read.

        Raises ClipError("media", "decode-timeout") when the process does not end, and ("media",
        "interrupted") where it was ended from outside or had no room on the disk: what it gave is then not
        all of the file.
        """
        deadline = time.monotonic() + self._stall_s
        while self._selector.get_map():
            for key, _ in self._wait_until(deadline):
                if key.fd == self._err:
                    self._read_log()
                elif not os.read(self._out, READ_BYTES):
                    self._end_output()
        try:
            status = self._process.wait(timeout=max(0.0, deadline - time.monotonic()) + 1.0)
        except subprocess.TimeoutExpired:
            raise self._stalled() from None
        if status in ENDED_FROM_OUTSIDE:
            detail = f"ffmpeg was ended from outside (signal {-status}); memory may have run short"
            raise ClipError("media", "interrupted", detail, transient=True)
        if status != 0 and os.strerror(errno.ENOSPC) in self.log:
            raise ClipError("media", "interrupted", "ffmpeg found no room on the disk", transient=True)
        return status

    def _wait_until(self, deadline: float) -> list[tuple[selectors.SelectorKey, int]]:
        left = deadline - time.monotonic()
        ready = self._selector.select(left) if left > 0 else []
        if not ready:
            raise self._stalled()
        return ready

    def _end_output(self) -> None:
        self._selector.unregister(self._out)
        self._at_end = True

    def _stalled(self) -> ClipError:
        self.close()
        return ClipError(
            "media", "decode-timeout", f"ffmpeg gave nothing for {self._stall_s:g} s and was stopped"
        )

    def _read_log(self) -> None:
        text = os.read(self._err, 65536)
        if not text:
            self._selector.unregister(self._err)
            return
        room = LOG_HEAD_BYTES - len(self._log_head)
        self._log_head += text[:room]
        self._log_tail = (self._log_tail + text[max(room, 0) :])[-LOG_TAIL_BYTES:]


def error_lines(log: str) -> list[str]:
    """The lines of a log, without what differs from run to run or machine to machine: addresses and paths."""
    lines = (re.sub(r"^\[[^\]]* @ [^\]]*\] |file:/.*: ", "", line).strip() for line in log.splitlines())
    return [line for line in lines if line and "file:/" not in line]


def _environment() -> dict[str, str]:
    """Ours, but without what would colour ffmpeg's log or have it write a report file.

    Statically linked builds (imageio-ffmpeg up to 0.6) crash on MPEG-TS where they load the host's character
    tables for the name of the programme. GCONV_PATH lets them find none.
    """
    ours = {
        name: value for name, value in os.environ.items() if name not in ("AV_LOG_FORCE_COLOR", "FFREPORT")
    }
    return {**ours, "AV_LOG_FORCE_NOCOLOR": "1", "GCONV_PATH": "/nonexistent"}
