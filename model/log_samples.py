"""Sample strips: while training, a look at what the model makes of a few frames it does not train on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from syncdiff.model.audio import AudioSpec
from syncdiff.model.config import TrainConfig
from syncdiff.model.data import Batch, Choice, collate, read_samples, trainable_rows
from syncdiff.model.diffusion import sample
from syncdiff.model.space import prepare, to_uint8
from syncdiff.model.training_run import Run
from syncdiff.pipeline.records import U8
from syncdiff.pipeline.store.paths import StoreError
from syncdiff.pipeline.store.read import open_dataset

CLIPS, FRAMES = 2, 6


def sample_strip(run: Run, writer: SummaryWriter) -> U8:
    """Draw masked input, result and truth below each other for frames of two validation clips.

    Written to <out>/samples and TensorBoard. Pose frames are the true ones, as in training: this shows single
    frames, not what generating a whole clip does.
    """
    device = run.accelerator.device
    batch = _frames(run.config, run.spec, run.dataset.root).to(device)
    known, mask, given = prepare(batch, run.space)
    generator = torch.Generator().manual_seed(run.config.seed)
    noise = torch.randn(known.shape, generator=generator).to(device)
    made = sample(run.ema, run.config.diffusion, known, mask, given, noise, run.space.clip)
    rows = [to_uint8(run.space.decode(known)), to_uint8(run.space.decode(made)), batch.target]
    strip = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    picture: U8 = strip.permute(1, 2, 0).cpu().numpy()
    folder = run.out / "samples"
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / f"step-{run.step:07d}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.add_image("samples", strip, run.step)
    return picture


def _frames(config: TrainConfig, spec: AudioSpec, root: Path) -> Batch:
    """The same frames every time: evenly spread over the first clips of the validation split."""
    split = config.loader.val_split or config.loader.train_split
    try:
        dataset = open_dataset(root, split)
    except StoreError:  # no such split: the training frames will do for a look
        dataset = open_dataset(root, config.loader.train_split)
    samples = []
    for row in trainable_rows(dataset)[:CLIPS]:
        clip = dataset[row]
        pose, frames = clip.column("pose_index"), clip.num_frames
        targets = np.unique(np.linspace(0, frames - 1, FRAMES).round().astype(int))
        choice = [Choice(int(t), int((t + frames // 2) % frames), int(pose[t])) for t in targets]
        samples += read_samples(clip, config, spec, choice)
    return collate(samples)
