"""What a person sees of a run in the terminal: progress while it goes on, tables when it is over."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining
from rich.table import Table

from syncdiff.pipeline.records import FPS

WRONG_USAGE = 2  # exit codes; 0 is a run that was completed, rejects included
FAILED = 1  # the command made sense, and yet something went wrong
INTERRUPTED = 130  # as a shell reports SIGINT: 128 + 2

PLAIN_EVERY_S = 10.0  # a log file wants a line now and then, not a moving bar


def run_command(
    command: Callable[[], None],
    usage: tuple[type[Exception], ...],
    failures: tuple[type[Exception], ...],
    interrupted: str,
) -> None:
    """Run a command as the whole of its process: declared errors end it with a sentence and an exit code.

    usage: what the user can say differently; failures: what went wrong. Anything else is a fault of ours, and
    its traceback is shown.
    """
    try:
        command()
    except usage as error:
        print_error(error)
        sys.exit(WRONG_USAGE)
    except failures as error:
        print_error(error)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        Console(stderr=True).print(interrupted)
        sys.exit(INTERRUPTED)


def print_error(error: Exception) -> None:
    """The error's message on stderr, unwrapped and without markup of its own."""
    Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)


class Meter:
    """Shows clips, rates, rejects and the time that remains; plain lines where the output is no terminal."""

    def __init__(self, console: Console, total: int, unit: str = "clips") -> None:
        self._console = console
        self._total = total
        self._unit = unit
        self._started = time.monotonic()
        self._shown = self._started
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rates]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            Remaining(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task(unit, total=total, rates="")

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: int, frames: int, rejects: int) -> None:
        """Show these totals, counted since the meter was made."""
        now = time.monotonic()
        elapsed_s = max(now - self._started, 1e-6)
        rates = f"{done / elapsed_s:.1f} {self._unit}/s · {frames / elapsed_s:.0f} frames/s"
        rates += f" · {rejects} rejected" if rejects else ""
        self._bar.update(self._task, completed=done, rates=rates)
        if not self._console.is_terminal and (now - self._shown >= PLAIN_EVERY_S):
            self._shown = now
            left = f"{(self._total - done) * elapsed_s / done:.0f} s left" if done else "no estimate yet"
            self._console.print(f"{done}/{self._total} {self._unit} · {rates} · {left}", highlight=False)


def print_counts(console: Console, manifest: Mapping[str, Any]) -> None:
    """Inputs, rows and rejects per split, and rejects per reason."""
    counts = manifest["counts"]
    table = Table("split", title_justify="left")
    for name in ("inputs", "prepared", "rejected", "rows", "frames", "hours"):
        table.add_column(name, justify="right")
    for split, c in sorted(counts["splits"].items()):
        hours = c["frames"] / FPS / 3600
        cells = (c["inputs"], c["prepared"], c["rejects"], c["rows"], c["frames"])
        table.add_row(escape(split), *(f"{n:,}" for n in cells), f"{hours:.2f}")
    console.print(table)
    if counts["reject_reasons"]:
        reasons = Table("rejected because", box=None, pad_edge=False)
        reasons.add_column("inputs", justify="right")
        for reason, number in sorted(counts["reject_reasons"].items(), key=lambda item: -item[1]):
            reasons.add_row(escape(reason), f"{number:,}")
        console.print(reasons)


def print_rejects(console: Console, rejects: list[dict[str, Any]], most: int = 10) -> None:
    """The first rejects, each with its reason in a sentence."""
    for reject in rejects[:most]:
        # a newline in a name must not break the line
        name = reject["source"].encode("unicode_escape").decode()
        text = f"  {escape(name)}: {reject['reason']}: {escape(reject['detail'])}"
        console.print(text, highlight=False, soft_wrap=True)
    if len(rejects) > most:
        console.print(f"  ... and {len(rejects) - most:,} more in rejects.parquet", highlight=False)


def available_cores() -> int:
    """Cores this process may use (fewer than the machine's in a container or under a batch system)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def bytes_text(number: float) -> str:
    """A number of bytes for people, in powers of 1000."""
    if number < 1000:
        return f"{number:.0f} B"
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 1000:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:.1f} TB"


def duration_text(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
