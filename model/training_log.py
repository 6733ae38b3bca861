"""How a training is going: a line in the terminal, entries in TensorBoard's log, sample strips to look at."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from syncdiff.model.data import Batch, SampleChoice, collate, read_samples, trainable_rows
from syncdiff.model.diffusion import sample
from syncdiff.model.space import prepare, to_uint8
from syncdiff.model.training_run import TrainingRun
from syncdiff.pipeline.console import duration_text
from syncdiff.pipeline.records import U8

STRIP_CLIPS, STRIP_FRAMES = 2, 6


@dataclass(frozen=True)
class StepFigures:
    """Mean loss of a step's batches, and the norm of the gradient before it is clipped."""

    loss: float
    grad_norm: float


class TrainingProgress:
    """Counts samples and averages the loss between entries; draws a bar where someone is looking."""

    def __init__(self, steps: int, say: Callable[[str], None], shown: bool) -> None:
        console = Console(stderr=True)
        self.say = say
        self.live = shown and console.is_terminal
        columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, disable=not self.live)
        self.task = self.bar.add_task("", total=steps)
        self.steps = steps
        self.step = self.steps_done = 0
        self.begun = time.perf_counter()
        self._begin_entry()

    def _begin_entry(self) -> None:
        self.entry_begun, self.samples = time.perf_counter(), 0
        self.losses: list[float] = []
        self.grad_norms: list[float] = []

    def __enter__(self) -> TrainingProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def update(self, step: int, figures: StepFigures, samples: int) -> None:
        """A step is done."""
        self.step = step
        self.steps_done += 1
        self.samples += samples
        self.losses.append(figures.loss)
        self.grad_norms.append(figures.grad_norm)
        if self.live:
            self.bar.update(self.task, completed=step, description=self.line())

    @property
    def loss(self) -> float:
        return sum(self.losses) / max(1, len(self.losses))

    @property
    def samples_per_s(self) -> float:
        return self.samples / max(1e-9, time.perf_counter() - self.entry_begun)

    def line(self) -> str:
        """Step, loss, speed and memory since the last entry."""
        memory = f"  GPU {gpu_memory_gib():.1f} GiB" if torch.cuda.is_available() else ""
        return (
            f"step {self.step}/{self.steps}  loss {self.loss:.4f}  {self.samples_per_s:.0f} samples/s{memory}"
        )

    def left(self) -> str:
        """The time that the remaining steps take at the pace so far."""
        pace = (time.perf_counter() - self.begun) / max(1, self.steps_done)
        return duration_text((self.steps - self.step) * pace)

    def log(self, writer: SummaryWriter, lr: float) -> None:
        """Write an entry and start the next; without a bar, say it too."""
        # The largest norm since the last entry: a mean would hide the one step that is out of the ordinary.
        norm = max(self.grad_norms)
        entry = {"loss": self.loss, "grad_norm": norm, "lr": lr, "samples_per_s": self.samples_per_s}
        if torch.cuda.is_available():
            entry["gpu_memory_gib"] = gpu_memory_gib()
        for name, value in entry.items():
            writer.add_scalar(name, value, self.step)
        if not self.live:
            self.say(f"{self.line()}  {self.left()} left")
        self._begin_entry()


def gpu_memory_gib() -> float:
    """Most GPU memory that PyTorch has held in this process, in GiB."""
    return torch.cuda.max_memory_reserved() / 2**30


def sample_strip(run: TrainingRun, writer: SummaryWriter) -> U8:
    """Draw masked input, result and truth below each other for frames of two validation clips.

    Written to <out>/samples and TensorBoard. Pose frames are the true ones, as in training: this shows single
    frames, not what generating a whole clip does.
    """
    device = run.accelerator.device
    batch = strip_frames(run).to(device)
    masked_input, mask, conditions = prepare(batch, run.space)
    # a generator of its own, so that training draws the same noise with and without strips
    generator = torch.Generator().manual_seed(run.config.seed)
    noise = torch.randn(masked_input.shape, generator=generator).to(device)
    generated = sample(run.ema, run.config.diffusion, masked_input, mask, conditions, noise, run.space.clip)
    rows = [to_uint8(run.space.decode(picture)) for picture in (masked_input, generated)] + [batch.target]
    strip = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    picture: U8 = strip.permute(1, 2, 0).cpu().numpy()
    folder = run.out / "samples"
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / f"step-{run.step:07d}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.add_image("samples", strip, run.step)
    return picture


def strip_frames(run: TrainingRun) -> Batch:
    """The same frames every time: evenly spread over the first validation clips."""
    samples = []
    for row in trainable_rows(run.validation)[:STRIP_CLIPS]:
        clip = run.validation[row]
        pose, frames = clip.column("pose_index"), clip.num_frames
        targets = np.unique(np.linspace(0, frames - 1, STRIP_FRAMES).round().astype(int))
        choices = [SampleChoice(int(t), int((t + frames // 2) % frames), int(pose[t])) for t in targets]
        samples += read_samples(clip, run.config, run.spec, choices)
    return collate(samples)
