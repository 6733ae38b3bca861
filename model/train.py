"""The training loop, top to bottom: open the data, build or resume, step, log, save.

The same command resumes from the newest checkpoint of its output folder: on a CPU bit for bit as if it had
never stopped. Ctrl-C or SIGTERM ends it after the current step, saved.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from syncdiff.model import checkpoint as ckpt
from syncdiff.model.config import TrainConfig
from syncdiff.model.data import Batch, RollOut, loader
from syncdiff.model.diffusion import denoising_loss, sample, training_schedule
from syncdiff.model.network import Conditions
from syncdiff.model.space import prepare, training_target
from syncdiff.model.training_log import StepFigures, TrainingProgress, validate
from syncdiff.model.training_run import TrainingRun, learning_rate, open_run, resume_state, save
from syncdiff.pipeline.records import CheckpointError, RunError
from syncdiff.pipeline.store.paths import StorePaths
from syncdiff.pipeline.store.prep_run import locked


class TrainingError(RunError):
    """Training cannot go on; the message says at which step and why."""


def train(config: TrainConfig, say: Callable[[str], None] = print) -> Path:
    """Train until `optim.steps` or until told to stop; return the last checkpoint.

    Raises ConfigError and CheckpointError before anything is changed, PlanError where another run is at work
    in the folder, TrainingError where the loss is no number.
    """
    run = open_run(config, say)
    with locked(StorePaths(run.out)) if run.accelerator.is_main_process else nullcontext():
        return run_steps(run)


def run_steps(run: TrainingRun) -> Path:
    """The steps that are left; the last checkpoint."""
    config, accelerator, main = run.config, run.accelerator, run.accelerator.is_main_process
    optim = config.optim
    model, optimizer = accelerator.prepare(run.net, run.optimizer)
    if optim.compile:
        model = torch.compile(model)
    schedule = training_schedule(config.diffusion)
    rank, world = accelerator.process_index, accelerator.num_processes
    batches = iter(loader(config, str(run.dataset.root), run.spec, rank, world, run.position))
    resume_state(run)  # after the loader, so that nothing draws random numbers in between
    writer = SummaryWriter(str(run.out / "logs"), purge_step=run.step + 1) if main else None
    with TrainingProgress(optim.steps, run.say, main) as progress, stop_signals() as stop:
        while run.step < optim.steps and not agreed(accelerator, stop.asked):
            figures = training_step(run, model, optimizer, schedule, batches)
            run.step += 1
            progress.update(run.step, figures, optim.batch_size * run.accumulate * world)
            if writer and (run.step % config.log.every == 0 or run.step == optim.steps):
                progress.log(writer, optimizer.param_groups[0]["lr"])
            if writer and config.log.sample_every and run.step % config.log.sample_every == 0:
                validate(run, writer)
            if run.step % config.log.checkpoint_every == 0:
                try:
                    save(run)
                except CheckpointError as error:  # a full disk, for one; training itself can go on
                    again = f"the next try is in {config.log.checkpoint_every} steps"
                    run.say(f"{error}. Training goes on; {again}.")
    if writer:
        writer.close()
    last = save(run)
    if run.step < optim.steps:
        run.say(f"stopped at step {run.step}, saved in {last}; the same command goes on from there")
    return last


def training_step(
    run: TrainingRun, model: Callable[..., Tensor], optimizer: Any, schedule: Any, batches: Iterator[Batch]
) -> StepFigures:
    """One optimiser step over the run's `accumulate` batches.

    Raises TrainingError, before anything is updated, where the loss or its gradient is no number.
    """
    config, accelerator = run.config, run.accelerator
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config.optim, run.step)
    losses, names = list[Tensor](), list[str]()
    for part in range(run.accumulate):
        batch = next(batches).to(accelerator.device)
        run.position += 1
        names += batch.names
        last = part + 1 == run.accumulate
        with nullcontext() if last else accelerator.no_sync(model), accelerator.autocast():
            masked_input, mask, conditions = prepare(batch, run.space)
            if batch.roll_out is not None:
                conditions = roll_out(run, batch.roll_out, conditions)
            target = training_target(batch, masked_input, mask, run.space)
            loss = denoising_loss(model, schedule, config.diffusion, target, mask, conditions)
        accelerator.backward(loss / run.accumulate)
        losses.append(loss.detach())
    norm = accelerator.clip_grad_norm_(run.net.parameters(), config.optim.clip_norm)
    # The device is waited for once a step, here: what is no number must not reach the weights.
    figures = StepFigures(*torch.stack([torch.stack(losses).mean(), norm.to(losses[0])]).tolist())
    if not (math.isfinite(figures.loss) and math.isfinite(figures.grad_norm)):
        newest = ckpt.newest(run.out / "checkpoints")
        raise TrainingError(
            f"step {run.step + 1}: the loss is {figures.loss}, the norm of its gradient {figures.grad_norm}. "
            f"The samples: {', '.join(names)}. Nothing was updated with them; the newest checkpoint from "
            f"before: {newest or 'none yet'}"
        )
    optimizer.step()
    optimizer.zero_grad()
    # The average follows faster at first: at step n as in TensorFlow's ExponentialMovingAverage.
    decay = min(config.optim.ema_decay, (1 + run.step) / (10 + run.step))
    with torch.no_grad():
        torch._foreach_lerp_(list(run.ema.parameters()), list(run.net.parameters()), 1 - decay)
    return figures


def roll_out(run: TrainingRun, earlier: RollOut, conditions: Conditions) -> Conditions:
    """The conditions with those pose frames that the averaged network makes of the frames before them.

    While generating, the pose frame is the network's own work. A network that only ever saw true ones trusts
    them too much and drifts (exposure bias; this is one step of scheduled sampling, Bengio et al. 2015,
    arXiv 1506.03099).
    """
    masked_input, mask, before = prepare(earlier.batch, run.space)
    diffusion = replace(run.config.diffusion, sampling_steps=run.config.loader.rollout_steps, guidance=1.0)
    noise = torch.randn(masked_input.shape).to(masked_input)
    generated = sample(run.ema, diffusion, masked_input, mask, before, noise, run.space.clip)
    return replace(
        conditions, pose=conditions.pose.index_copy(0, earlier.positions, generated.to(conditions.pose))
    )


class StopRequest:
    """Whether someone asked the run to end."""

    asked = False


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Within, the first SIGINT or SIGTERM sets `asked`; a second one acts as usual."""
    request, before = StopRequest(), dict[int, Any]()

    def ask(number: int, frame: object) -> None:
        request.asked = True
        signal.signal(number, before[number] or signal.SIG_DFL)

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        before[number] = signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def agreed(accelerator: Accelerator, asked: bool) -> bool:
    """True on every process as soon as one was asked to stop."""
    if accelerator.num_processes == 1:
        return asked
    flag = torch.tensor([float(asked)], device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum").item() > 0)
