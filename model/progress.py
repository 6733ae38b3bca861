"""How a training is going: a line in the terminal, entries in TensorBoard's log."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

import torch
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch.utils.tensorboard import SummaryWriter

from syncdiff.pipeline.console import duration_text


class Progress:
    """Counts samples and averages the loss between entries; draws a bar where someone is looking."""

    def __init__(self, steps: int, say: Callable[[str], None], shown: bool) -> None:
        self.say = say
        console = Console(stderr=True)
        self.live = shown and console.is_terminal
        self.shown = shown
        columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self.bar = Bar(*columns, console=console, disable=not self.live)
        self.task = self.bar.add_task("", total=steps)
        self.steps = steps
        self.step = self.done = 0
        self.begun = time.perf_counter()
        self._reset()

    def _reset(self) -> None:
        self.started, self.samples, self.losses = time.perf_counter(), 0, [0.0, 0]

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def update(self, step: int, loss: float, samples: int) -> None:
        """A step is done."""
        self.step = step
        self.done += 1
        self.samples += samples
        self.losses = [self.losses[0] + loss, self.losses[1] + 1]
        if self.live:
            self.bar.update(self.task, completed=step, description=self.line())

    def line(self) -> str:
        """Step, loss, speed and memory since the last entry."""
        memory = gpu_memory_gib()
        held = f"  GPU {memory:.1f} GiB" if memory is not None else ""
        return f"step {self.step}/{self.steps}  loss {self.loss:.4f}  {self.rate:.0f} samples/s{held}"

    def left(self) -> str:
        """The time that the remaining steps take at the pace so far."""
        pace = (time.perf_counter() - self.begun) / max(1, self.done)
        return duration_text((self.steps - self.step) * pace)

    @property
    def loss(self) -> float:
        return self.losses[0] / max(1, self.losses[1])

    @property
    def rate(self) -> float:
        return self.samples / max(1e-9, time.perf_counter() - self.started)

    def log(self, writer: SummaryWriter, lr: float) -> None:
        """Write an entry and start the next; without a bar, say it too."""
        writer.add_scalar("loss", self.loss, self.step)
        writer.add_scalar("lr", lr, self.step)
        writer.add_scalar("samples_per_s", self.rate, self.step)
        if (memory := gpu_memory_gib()) is not None:
            writer.add_scalar("gpu_memory_gib", memory, self.step)
        if not self.live:
            self.say(f"{self.line()}  {self.left()} left")
        self._reset()


def gpu_memory_gib() -> float | None:
    """Most GPU memory that PyTorch has held in this process, in GiB; None without a GPU."""
    return torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else None
