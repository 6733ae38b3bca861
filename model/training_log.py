"""How a training is going: a line in the terminal, TensorBoard's log, validation with strips to look at."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from syncdiff.model.data import SampleChoice, collate, read_samples, trainable_rows
from syncdiff.model.diffusion import denoising_loss, training_schedule
from syncdiff.model.generate import GenerationJob, Model, generate, generate_frames
from syncdiff.model.generate_split import row_job
from syncdiff.model.space import prepare, training_target
from syncdiff.model.training_run import TrainingRun, averaged_model
from syncdiff.pipeline.console import duration_text
from syncdiff.pipeline.records import U8
from syncdiff.pipeline.store.read import ClipView

STRIP_CLIPS, STRIP_FRAMES = 2, 6
FREE_FRAMES = 50  # of each clip: two seconds, in which a drift shows
NOISE_SHARES = (0.125, 0.375, 0.625, 0.875)  # of the time steps: the middles of its quarters


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


def validate(run: TrainingRun, writer: SummaryWriter) -> None:
    """Log how the averaged network does on the first validation clips, and a strip of what it makes of them.

    val_loss/<t>: the loss at four time steps t. val_psnr: PSNR in dB inside the masks, against the truth, of
    frames generated one after the other from the pose frames that the network made (free_running, as results
    are), from the true ones (true_pose, as it is trained) and without (no_pose). What free running loses to
    the true ones is exposure bias; below no_pose, the pose frame harms. The strip shows free running.

    Draws from no random generator that training uses.
    """
    model = averaged_model(run)
    clips = [run.validation[row] for row in trainable_rows(run.validation)[:STRIP_CLIPS]]
    for timestep, loss in loss_by_noise(run, model, clips).items():
        writer.add_scalar(f"val_loss/{timestep}", loss, run.step)
    jobs = [first_frames(row_job(model, clip.clip_id, clip, clip), FREE_FRAMES) for clip in clips]
    batch = run.config.optim.batch_size
    runs = {"free_running": list(generate(model, map(restarted, jobs), batch))}
    if run.config.model.pose.bottleneck != "off":
        runs["true_pose"] = [from_true_pose(model, job, batch) for job in jobs]
        alone = (replace(restarted(job), pose_from=np.full_like(job.pose_from, -1)) for job in jobs)
        runs["no_pose"] = list(generate(model, alone, batch))
    psnr = {name: psnr_in_mask(done) for name, done in runs.items()}
    for name, value in psnr.items():
        writer.add_scalar(f"val_psnr/{name}", value, run.step)
    listed = ", ".join(f"{name.replace('_', ' ')} {value:.2f} dB" for name, value in psnr.items())
    run.say(f"step {run.step}/{run.config.optim.steps}  PSNR in the mask: {listed}")
    strip = np.concatenate([clip_strip(job) for job in runs["free_running"]], axis=1)
    folder = run.out / "samples"
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / f"step-{run.step:07d}.png"), cv2.cvtColor(strip, cv2.COLOR_RGB2BGR))
    writer.add_image("samples", strip, run.step, dataformats="HWC")


@torch.no_grad()
def loss_by_noise(run: TrainingRun, model: Model, clips: list[ClipView]) -> dict[int, float]:
    """The loss of a few true frames at each of four time steps, with the same noise every time."""
    config, samples = run.config, []
    for clip in clips:
        pose, frames = clip.column("pose_index"), clip.num_frames
        targets = np.unique(np.linspace(0, frames - 1, STRIP_FRAMES).round().astype(int))
        chosen = [SampleChoice(int(t), int((t + frames // 2) % frames), int(pose[t])) for t in targets]
        samples += read_samples(clip, config, run.spec, chosen)
    batch = collate(samples).to(model.device)
    masked_input, mask, conditions = prepare(batch, run.space)
    target = training_target(batch, masked_input, mask, run.space)
    schedule, losses = training_schedule(config.diffusion), {}
    for timestep in (config.diffusion.timesteps * np.array(NOISE_SHARES)).astype(int).tolist():
        generator = torch.Generator().manual_seed(config.seed)
        same = torch.full((len(target),), timestep, device=model.device)
        losses[timestep] = denoising_loss(
            model.net, schedule, config.diffusion, target, mask, conditions, generator, same
        ).item()
    return losses


def first_frames(job: GenerationJob, frames: int) -> GenerationJob:
    """The job cut to its first frames."""
    return replace(
        job,
        order=job.order[:frames],
        identity=job.identity[:frames],
        pose_from=job.pose_from[:frames],
        audio=job.audio[:frames],
        generated=job.generated[:frames],
    )


def restarted(job: GenerationJob) -> GenerationJob:
    """The job with nothing generated yet."""
    return replace(job, generated=np.zeros_like(job.generated), done=0)


def from_true_pose(model: Model, job: GenerationJob, batch: int) -> GenerationJob:
    """The job done, each frame from its true pose frame."""
    truth = replace(job, generated=job.face.frames(job.order.tolist()))
    frames = range(len(job.order))
    parts = [generate_frames(model, [(truth, i) for i in frames[k : k + batch]]) for k in frames[::batch]]
    return replace(job, generated=np.concatenate(parts), done=len(frames))


def psnr_in_mask(jobs: list[GenerationJob]) -> float:
    """PSNR in dB of all that was generated inside the masks, against the frames shown."""
    errors = []
    for job in jobs:
        shown = job.order.tolist()
        difference = job.generated.astype(np.float64) - job.face.frames(shown)
        errors.append(np.square(difference[job.face.masks(shown)]).ravel())
    return float(10 * np.log10(255**2 / max(1e-9, np.concatenate(errors).mean())))


def clip_strip(job: GenerationJob) -> U8:
    """Masked input, result and truth below each other, for frames spread evenly over a job: [3N,n*N,3]."""
    picked = np.unique(np.linspace(0, len(job.order) - 1, STRIP_FRAMES).round().astype(int))
    shown = job.order[picked].tolist()
    truth = job.face.frames(shown)
    masked = np.where(job.face.masks(shown)[..., None], np.uint8(128), truth)
    return np.concatenate(
        [np.concatenate(list(row), axis=1) for row in (masked, job.generated[picked], truth)]
    )
