"""A run: built from its configuration, resumed from its newest checkpoint, saved to the next."""

from __future__ import annotations

import copy
import hashlib
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import gather_object

from syncdiff.model import checkpoint as ckpt
from syncdiff.model.audio import AudioSpec, audio_spec, feature_statistics
from syncdiff.model.config import OptimConfig, TrainConfig, from_mapping
from syncdiff.model.data import trainable_rows
from syncdiff.model.finetune_avhubert import TunedHubert, load_hubert
from syncdiff.model.generate import Model
from syncdiff.model.network import AudioStats, SyncDiffNet
from syncdiff.model.space import Space, make_space
from syncdiff.pipeline.config import ConfigError, differences, to_mapping
from syncdiff.pipeline.records import CheckpointError
from syncdiff.pipeline.store.paths import StorePaths
from syncdiff.pipeline.store.prep_run import locked
from syncdiff.pipeline.store.read import Dataset, open_dataset

# What may differ from the checkpoint that a run goes on from: nothing that shapes the model or its samples.
FREE_RUN = ("data", "out", "log.", "loader.workers", "optim.steps", "optim.device", "optim.compile")
FREE = (*FREE_RUN, "diffusion.sampl", "diffusion.guidance")


@dataclass
class TrainingRun:
    """A run in progress.

    `validation` holds the clips that strips show. `step` counts finished optimiser steps, `position` batches
    drawn by each rank, `batches_per_step` those that all ranks draw for a step: it stays where a run goes on
    with another number of processes, if these can share it.
    """

    config: TrainConfig
    out: Path
    accelerator: Accelerator
    say: Callable[[str], None]
    dataset: Dataset
    validation: Dataset
    spec: AudioSpec
    space: Space
    net: SyncDiffNet
    ema: SyncDiffNet
    optimizer: torch.optim.Optimizer
    batches_per_step: int
    step: int = 0
    position: int = 0
    saved_step: int = -1

    @property
    def accumulate(self) -> int:
        """Forward passes of each rank in a step."""
        return max(1, round(self.batches_per_step / int(self.accelerator.num_processes)))


def open_run(config: TrainConfig, say: Callable[[str], None]) -> TrainingRun:
    """Check everything, then build the run: fresh, or with the weights of the newest checkpoint.

    Only the main process says anything. Raises ConfigError, StoreError and CheckpointError.
    """
    if config.data is None or config.out is None:
        raise ConfigError(
            "training needs data (a prepared data set) and out (a folder), in the file or as flags"
        )
    accelerator = make_accelerator(config)
    if not accelerator.is_main_process:
        say = lambda text: None  # noqa: E731 - each line would be said once a process
    if accelerator.num_processes == 1 and {"ACCELERATE_USE_CPU", "MASTER_PORT"} <= os.environ.keys():
        # What accelerate 1.x leaves behind where it was asked for several processes without several GPUs.
        say(
            "accelerate launch started one process, as it does without a GPU for each; "
            "several on processors: torchrun --nproc_per_node N -m syncdiff.model.cli …"
        )
    dataset = open_dataset(config.data, config.loader.train_split)
    rows = trainable_rows(dataset)
    if not rows:
        raise ConfigError(
            f"{config.data}: split {config.loader.train_split} has no clip with sound to train on"
        )
    if fewer := len(dataset) - len(rows):
        say(f"{fewer} of {len(dataset)} clips have no sound or a single frame and are left out")
    spec, space = audio_spec(config.model.audio, dataset), make_space(config.model)
    if spec.untrained:
        say(f"the features {spec.id} come from an untrained network: this is a rehearsal, not a model")
    validation = validation_clips(config, dataset, say)
    out = Path(config.out)
    newest = ckpt.newest(out / "checkpoints")
    state = None if newest is None else resumable_state(config, dataset, newest)

    torch.manual_seed(config.seed)  # the same weights on every rank
    net = build_network(config, dataset, rows, spec, space)
    ema = copy.deepcopy(net).eval().requires_grad_(False)
    optim = config.optim
    optimizer = torch.optim.AdamW(
        [p for p in net.parameters() if p.requires_grad],
        lr=optim.lr,
        betas=(optim.betas[0], optim.betas[1]),
        weight_decay=optim.weight_decay,
    )
    out.mkdir(parents=True, exist_ok=True)
    if accelerator.is_main_process:
        (out / "config.yaml").write_text(yaml.safe_dump(to_mapping(config), sort_keys=False), "utf-8")
    run = TrainingRun(
        config=config,
        out=out,
        accelerator=accelerator,
        say=say,
        dataset=dataset,
        validation=validation,
        spec=spec,
        space=space.to(accelerator.device),
        net=net,
        ema=ema.to(accelerator.device),
        optimizer=optimizer,
        batches_per_step=optim.accumulate * accelerator.num_processes,
    )
    if newest is not None and state is not None:
        ckpt.load_into(net, newest, "model")
        ckpt.load_into(ema, newest, "ema")
        say(f"going on from {newest}")
        go_on(run, state)
    return run


def validation_clips(config: TrainConfig, dataset: Dataset, say: Callable[[str], None]) -> Dataset:
    """The validation split where it has clips to look at, else the training split, and that is said."""
    split = config.loader.val_split
    if split in {shard["split"] for shard in dataset.manifest["shards"]}:
        validation = open_dataset(dataset.root, split)
        if trainable_rows(validation):
            return validation
    if config.log.sample_every:
        say(
            f"{dataset.root} has no split {split!r} with clips to validate with (loader.val_split): "
            f"strips show frames of {config.loader.train_split!r}, which are trained on"
        )
    return dataset


def go_on(run: TrainingRun, state: dict[str, Any]) -> None:
    """Take up step and position of a checkpoint, and say what is different from when it was written."""
    before, optim = state["config"], run.config.optim
    run.step = run.saved_step = int(state["step"])
    run.position = int(state["position"])
    processes = run.accelerator.num_processes
    processes_before = state["streams"] // max(1, before["loader"]["workers"])
    run.batches_per_step = state.get("batches_per_step", optim.accumulate * processes_before)
    if state["streams"] != _streams(run):
        run.say("another number of processes or workers: from here on samples come in another order")
    if processes != processes_before:
        run.position = run.position * processes_before // processes  # all ranks together have drawn as many
        seen, meant = (optim.batch_size * n for n in (run.accumulate * processes, run.batches_per_step))
        run.say(
            f"processes: {processes} instead of {processes_before}, each with {run.accumulate} x "
            f"{optim.batch_size} samples a step: {seen} in all"
            + (", as before" if seen == meant else f" instead of {meant}, which these cannot share")
        )
    steps_before = before["optim"]["steps"]
    if optim.final_decay and optim.steps != steps_before:
        rate = learning_rate(optim, run.step)
        planned = learning_rate(replace(optim, steps=steps_before), run.step)
        run.say(
            f"optim.steps was {steps_before} and is {optim.steps}; as the rate falls over the last "
            f"{optim.final_decay:.0%} of them, it goes on at {rate:.3g} instead of {planned:.3g}"
        )


def learning_rate(optim: OptimConfig, step: int) -> float:
    """Linear warm-up, constant, and over the last share `final_decay` of the steps linearly towards zero."""
    rate = optim.lr * min(1.0, (step + 1) / max(1, optim.warmup_steps))
    if optim.final_decay > 0:
        rate *= min(1.0, (optim.steps - step) / (optim.final_decay * optim.steps))
    return max(rate, 0.0)


def _streams(run: TrainingRun) -> int:
    return int(run.accelerator.num_processes) * max(1, run.config.loader.workers)


def make_accelerator(config: TrainConfig) -> Accelerator:
    """The device that the configuration asks for. Raises ConfigError where there is none."""
    if config.optim.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "optim.device asks for cuda, but PyTorch finds no CUDA device here; to train on the processor: "
            "--set optim.device=cpu"
        )
    return Accelerator(
        cpu=config.optim.device == "cpu" or not torch.cuda.is_available(),
        mixed_precision=config.optim.precision,
    )


def build_network(
    config: TrainConfig, dataset: Dataset, rows: list[int], spec: AudioSpec, space: Space
) -> SyncDiffNet:
    """The network for this sound and space with fresh weights, scaled by the cached features of `rows`.

    An encoder that is trained along starts as AV-HuBERT, and its features are not scaled.
    """
    side = config.model.resolution // space.downsample
    if not config.model.audio.finetune_layers:
        mean, std = feature_statistics(dataset, spec, rows)
        stats = AudioStats(torch.from_numpy(mean), torch.from_numpy(std))
        return SyncDiffNet(config.model, space.channels, side, stats, spec.steps)
    encoder = load_hubert(config.model.audio)
    width = encoder.model.config.width
    unscaled = AudioStats(torch.zeros(width), torch.ones(width))
    return SyncDiffNet(config.model, space.channels, side, unscaled, config.model.audio.window, encoder)


def fingerprint(dataset: Dataset) -> str:
    """Hash of the clip shards of the training split."""
    shards = [s["clips"]["sha256"] for s in dataset.manifest["shards"] if s["name"] in dataset.shards]
    return hashlib.sha256("".join(shards).encode()).hexdigest()


def resumable_state(config: TrainConfig, dataset: Dataset, checkpoint: Path) -> dict[str, Any]:
    """The state of a checkpoint to go on from.

    Raises CheckpointError where it is of another configuration or other data.
    """
    state = ckpt.read_state(checkpoint)
    before = to_mapping(from_mapping(state["config"], str(checkpoint)))  # what is newer has its default
    changed = [d for d in differences(before, to_mapping(config)) if not d.startswith(FREE)]
    if state["dataset"] != fingerprint(dataset):
        changed.append(f"data: the shards of {dataset.root} are not those that it was trained on")
    if changed:
        listed = "\n  ".join(changed)
        raise CheckpointError(
            f"{checkpoint} belongs to another run. What differs (checkpoint -> now):\n  {listed}\n"
            "Give another --out, or --overwrite to start again."
        )
    return state


def start_again(out: Path) -> None:
    """Remove what a run left in its folder, and nothing else; the lock stays. PlanError while it runs."""
    if out.is_dir():
        with locked(StorePaths(out)):
            for part in ("checkpoints", "logs", "samples"):
                shutil.rmtree(out / part, ignore_errors=True)


def resume_state(run: TrainingRun) -> None:
    """Optimiser and random numbers of the checkpoint that `open_run` resumed; without one, a seed a rank."""
    rank = run.accelerator.process_index
    if run.saved_step < 0:
        torch.manual_seed(run.config.seed + 1 + rank)
        return
    checkpoint = checkpoint_path(run)
    groups = ckpt.read_state(checkpoint)["optimizer"]
    ckpt.unpack_optimizer(run.optimizer, ckpt.read_tensors(checkpoint, "optimizer"), groups)
    random = ckpt.read_tensors(checkpoint, "random")
    if f"cpu.{rank}" in random:
        torch.set_rng_state(random[f"cpu.{rank}"])
        if torch.cuda.is_available() and f"cuda.{rank}" in random:
            torch.cuda.set_rng_state(random[f"cuda.{rank}"])
    else:  # a rank that the checkpoint did not have
        torch.manual_seed(run.config.seed + 1 + rank + run.step)


def checkpoint_path(run: TrainingRun) -> Path:
    """Where the checkpoint of the current step is or will be."""
    return run.out / "checkpoints" / f"step-{run.step:07d}"


def averaged_model(run: TrainingRun) -> Model:
    """The averaged network as the generator takes it, and as `load_model` will read it from a checkpoint."""
    prep = run.dataset.manifest["config"]
    return Model(
        config=run.config,
        diffusion=run.config.diffusion,
        net=run.ema,
        space=run.space,
        spec=run.spec,
        preparation={key: prep.get(key) for key in ("mask", "pose", "align", "face_size_px")},
        extractor=run.dataset.extractors.get(run.spec.id, {}),
        step=run.step,
        device=run.accelerator.device,
    )


def save(run: TrainingRun) -> Path:
    """Write the checkpoint of the current step, unless it is there. Raises CheckpointError."""
    if run.saved_step == run.step:
        return checkpoint_path(run)
    on_gpu = run.accelerator.device.type == "cuda"
    own_random = {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if on_gpu else {})
    by_rank = gather_object([own_random])
    if run.accelerator.is_main_process:
        optimizer, groups = ckpt.pack_optimizer(run.optimizer)
        tensors = {
            "model": run.net.state_dict(),
            "ema": run.ema.state_dict(),
            "optimizer": optimizer,
            "random": {f"{k}.{rank}": v for rank, states in enumerate(by_rank) for k, v in states.items()},
        }
        model = averaged_model(run)
        hubert = run.net.encoder.model.config if isinstance(run.net.encoder, TunedHubert) else None
        packages = ("syncdiff", "torch", "diffusers", "accelerate")
        state = {
            "position": run.position,
            "streams": _streams(run),
            "batches_per_step": run.batches_per_step,
            "config": to_mapping(run.config),
            "audio": asdict(run.spec),
            "extractor": model.extractor,
            "hubert": None if hubert is None else asdict(hubert),
            "preparation": model.preparation,
            "dataset": fingerprint(run.dataset),
            "optimizer": groups,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        }
        ckpt.save(run.out / "checkpoints", run.step, tensors, state, run.config.log.keep)
    run.accelerator.wait_for_everyone()
    run.saved_step = run.step
    return checkpoint_path(run)
