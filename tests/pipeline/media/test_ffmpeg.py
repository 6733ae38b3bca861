"""The watched process by itself, with shell commands in ffmpeg's place."""

from __future__ import annotations

import sys
from pathlib import Path

import ffmpeg
import psutil
import pytest

from syncdiff.pipeline.media.ffmpeg import (
    LOG_HEAD_BYTES,
    LOG_TAIL_BYTES,
    SOURCE,
    FfmpegProcess,
    command_line,
    error_lines,
    ffmpeg_binary,
    ffmpeg_version,
)
from syncdiff.pipeline.records import ClipError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_binary_on_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    bundled = ffmpeg_binary()
    assert Path(bundled).is_file()
    assert ffmpeg_version(bundled)[0].isalnum()
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho ffmpeg version 99.1-test Copyright\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ffmpeg_binary() == str(tmp_path / "ffmpeg")
    assert ffmpeg_version() == "99.1-test"


def test_path_is_put_in_as_a_file_address(tmp_path: Path) -> None:
    output = ffmpeg.output(ffmpeg.input(SOURCE)["V:0"], "-", f="null")
    command = command_line(output, Path("-y \udcff.mp4"), "error")
    assert command[command.index("-i") + 1] == f"file:{Path.cwd()}/-y \udcff.mp4"
    assert "-nostdin" in command


def test_output_in_pieces() -> None:
    with FfmpegProcess(python("import sys; sys.stdout.buffer.write(bytes(range(256)) * 20)")) as process:
        first, rest = bytearray(1000), bytearray(100_000)
        assert process.read_into(memoryview(first)) == 1000
        assert process.read_into(memoryview(rest)) == 4120
        assert process.read_into(memoryview(rest)) == 0
        assert first + rest[:4120] == bytes(range(256)) * 20
        assert process.finish() == 0


def test_read_all_stops_at_its_limit() -> None:
    with FfmpegProcess(python("print('x' * 5_000_000)")) as process:
        assert len(process.read_all(3_000_000)) == 3_000_000


def test_long_log_is_kept_short() -> None:
    """The log is drained while the output is read, or the process would wait for ever with a full pipe."""
    code = "import sys\nfor k in range(60_000): print('line', k, file=sys.stderr)\nprint('done')"
    with FfmpegProcess(python(code)) as process:
        assert process.read_all(100) == b"done\n"
        assert process.finish() == 0
        assert process.log.startswith("line 0\nline 1\n")
        assert process.log.endswith("line 59999\n")
        assert len(process.log) == LOG_HEAD_BYTES + LOG_TAIL_BYTES


def test_environment_cannot_colour_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AV_LOG_FORCE_COLOR", "1")
    monkeypatch.setenv("FFREPORT", "file=report.log")
    output = ffmpeg.output(ffmpeg.input(SOURCE), "-", f="null")
    with FfmpegProcess(command_line(output, Path("none.mp4"), "info")) as process:
        assert process.finish() != 0
        assert "none.mp4" in process.log
        assert "\x1b" not in process.log
    assert not Path("report.log").exists()


def test_exit_status() -> None:
    with FfmpegProcess(python("raise SystemExit(3)")) as process:
        assert process.finish() == 3


def test_errors_alone_do_not_count_as_life() -> None:
    code = "import sys, time\nwhile True: print('error', file=sys.stderr, flush=True); time.sleep(0.05)"
    with (
        FfmpegProcess(python(code), stall_s=0.5) as process,
        pytest.raises(ClipError, match="decode-timeout"),
    ):
        process.read_into(memoryview(bytearray(10)))


def test_slow_output_is_no_stall() -> None:
    code = "import time\nfor _ in range(8): print('x' * 9, flush=True); time.sleep(0.2)"
    with FfmpegProcess(python(code), stall_s=1.2) as process:
        assert len(process.read_all(1000)) == 80


def test_leaving_ends_the_process() -> None:
    with FfmpegProcess(python("import time; time.sleep(600)")):
        (child,) = psutil.Process().children()
    assert not child.is_running()


def test_error_lines_hold_no_address_and_no_path() -> None:
    log = (
        "[h264 @ 0x55aa] error while decoding MB 3 4\n\n[in#0 @ 0x77] Error opening input: Invalid data\n"
        "Error opening input file file:/data/a b.mp4.\nfile:/data/a: b.mp4: No such thing\nplain\n"
    )
    want = ["error while decoding MB 3 4", "Error opening input: Invalid data", "No such thing", "plain"]
    assert error_lines(log) == want


@pytest.mark.parametrize(
    "end",
    ["os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 15)", "sys.exit('video.jpg: No space left on device')"],
)
def test_what_is_ended_from_outside_has_not_given_all_of_the_file(end: str) -> None:
    """It was once taken for a file that breaks off, and used as far as it went."""
    with FfmpegProcess(python(f"import os, sys; print('half', flush=True); {end}")) as process:
        assert process.read_all(100) == b"half\n"
        with pytest.raises(ClipError) as error:
            process.finish()
    assert (error.value.reason, error.value.transient) == ("interrupted", True)
