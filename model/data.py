"""Training samples straight from the shards.

An epoch visits every clip once and takes a few random frames of it. Row groups, the units that Parquet reads,
are shuffled across all shards and dealt to the loader streams (one per rank and worker), each of which reads
only its own. A stream opens a few row groups at a time, decodes the frames its samples need and nothing else,
and shuffles those samples. Everything follows from (seed, epoch, clip), so a stream can start at any
position: resuming in the middle of an epoch costs no reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from syncdiff.model.audio import AudioSpec, audio_windows, clip_audio
from syncdiff.model.config import TrainConfig
from syncdiff.pipeline.records import F32, U8, Bool
from syncdiff.pipeline.store.read import ClipView, Dataset, open_dataset


@dataclass(frozen=True)
class Batch:
    """B samples. Pictures [B,3,N,N] uint8, masks [B,1,N,N] bool, audio [B,L,D] float32, flags [B] bool.

    `names` say clip and frame of each sample; `pose` is zero where `has_pose` is False. `roll_out` says which
    pose frames the network is to make itself; `pose` holds the true ones nonetheless.
    """

    target: Tensor
    mask: Tensor
    identity: Tensor
    pose: Tensor
    has_pose: Tensor
    audio: Tensor
    has_audio: Tensor
    names: tuple[str, ...]
    roll_out: RollOut | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on `device`."""
        values = [(f.name, getattr(self, f.name)) for f in fields(self)]
        moved: dict[str, Any] = {k: v.to(device, non_blocking=True) for k, v in values if torch.is_tensor(v)}
        return replace(self, **moved, roll_out=self.roll_out and self.roll_out.to(device))


@dataclass(frozen=True)
class RollOut:
    """The targets of `batch` [R] are pose frames of samples `positions` [R] int64 of another batch."""

    positions: Tensor
    batch: Batch

    def to(self, device: torch.device) -> RollOut:
        """With its tensors on `device`."""
        return RollOut(self.positions.to(device), self.batch.to(device))


@dataclass(frozen=True)
class Sample:
    """One frame of a clip with all that conditions it; the fields of `Batch` without B, pictures [N,N,3]."""

    target: U8
    mask: Bool
    identity: U8
    pose: U8
    has_pose: bool
    audio: F32
    has_audio: bool
    name: str
    earlier: Sample | None = None  # what its pose frame is to be made of, where the network makes it


def resize_faces(faces: U8, size: int) -> U8:
    """Faces [n,N,N,3] to [n,size,size,3]; see `resize_masks` for why the two go together."""
    if faces.shape[1] == size:
        return faces
    return np.stack(
        [cv2.resize(face, (size, size), interpolation=_interpolation(faces, size)) for face in faces]
    )


def resize_masks(masks: Bool, size: int) -> Bool:
    """Masks [n,N,N] to [n,size,size]: set wherever a resized face mixes in anything from inside the mask.

    With the interpolation of `resize_faces`, so that no pixel left visible holds a trace of the mouth.
    """
    if masks.shape[1] == size:
        return masks
    how = _interpolation(masks, size)
    return np.stack([cv2.resize(m.astype(np.float32), (size, size), interpolation=how) > 0 for m in masks])


def _interpolation(pictures: NDArray[Any], size: int) -> int:
    return cv2.INTER_AREA if size < pictures.shape[1] else cv2.INTER_LINEAR


def trainable_rows(dataset: Dataset) -> list[int]:
    """Rows to train on: with sound, and with a second frame to serve as identity."""
    table = dataset.table(["num_frames", "audio_padded_samples"])
    frames = table.column(0).to_numpy()
    sounds = table.column(1).is_valid().to_numpy(zero_copy_only=False)
    return [int(i) for i in np.flatnonzero(sounds & (frames >= 2))]


def row_groups(dataset: Dataset, rows: list[int]) -> list[list[int]]:
    """Rows, those of one row group together, in the order of the shards."""
    groups: dict[tuple[str, int], list[int]] = {}
    for row in rows:
        view = dataset[row]
        groups.setdefault((view.shard, view.row_group), []).append(row)
    return list(groups.values())


class SampleStream:
    """The endless samples of one loader stream: `stream` of `streams`, over row groups of row numbers."""

    def __init__(self, groups: list[list[int]], config: TrainConfig, stream: int, streams: int) -> None:
        self.groups, self.config = groups, config
        self.stream, self.streams = stream, streams

    def mine(self, epoch: int) -> list[list[int]]:
        """This stream's row groups in an epoch, shuffled; shared where there are fewer than streams."""
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.groups))
        dealt = order[self.stream % len(order) :: self.streams]
        return [self.groups[i] for i in dealt]

    def samples(self, epoch: int) -> int:
        return sum(map(len, self.mine(epoch))) * self.config.loader.frames_per_clip

    def locate(self, position: int) -> tuple[int, int]:
        """Epoch and place in it of the position-th sample of this stream."""
        epoch = 0
        while position >= (count := self.samples(epoch)):
            position -= count
            epoch += 1
        return epoch, position

    def blocks(self, epoch: int) -> Iterator[list[tuple[int, int]]]:
        """The samples of each window of row groups as (row, k-th sample of its clip), shuffled."""
        mine, window = self.mine(epoch), self.config.loader.window
        per_clip = self.config.loader.frames_per_clip
        for start in range(0, len(mine), window):
            block = [
                (row, k) for group in mine[start : start + window] for row in group for k in range(per_clip)
            ]
            order = np.random.default_rng([self.config.seed, epoch, self.stream, start]).permutation(
                len(block)
            )
            yield [block[i] for i in order]

    def from_position(self, position: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """(epoch, samples of a block) from the position-th sample on, for ever."""
        epoch, skip = self.locate(position)
        while True:
            for block in self.blocks(epoch):
                if skip < len(block):
                    yield epoch, block[skip:]
                skip = max(0, skip - len(block))
            epoch += 1


@dataclass(frozen=True)
class SampleChoice:
    """Which frames of a clip make a sample, and how they are shown. pose is -1 for none."""

    target: int
    identity: int
    pose: int
    has_audio: bool = True
    mirrored: bool = False
    gains: tuple[float, ...] = (1.0, 1.0, 1.0)  # of red, green and blue
    shift: tuple[int, ...] = (0, 0)  # pixels down and to the right
    earlier: SampleChoice | None = None  # makes the pose frame, where that is not the true one


def draw(clip: ClipView, config: TrainConfig, epoch: int, row: int) -> list[SampleChoice]:
    """Choose the samples of a clip's visit; they follow from the seed, the epoch and the row."""
    rng = np.random.default_rng([config.seed, epoch, row, 1])
    frames, loader = clip.num_frames, config.loader
    pose_index, ranked = clip.column("pose_index"), clip.column("identity_index")
    chosen = []
    for _ in range(loader.frames_per_clip):
        target, other = int(rng.integers(frames)), int(rng.integers(1, frames))
        identity = (target + other) % frames  # any frame but the target
        if loader.identity == "ranked" and (best := ranked[target][ranked[target] >= 0]).size:
            identity = int(best[other % len(best)])
        pose = int(pose_index[target])
        if rng.random() < config.model.pose.drop or config.model.pose.bottleneck == "off":
            pose = -1
        has_audio = bool(rng.random() >= config.model.audio.drop)
        mirrored = loader.mirror and bool(rng.random() < 0.5)
        gains = np.exp(loader.light * (rng.standard_normal() + 0.3 * rng.standard_normal(3)))
        shift = np.round(rng.uniform(-loader.shift, loader.shift, 2) * config.model.resolution).astype(int)
        choice = SampleChoice(
            target, identity, pose, has_audio, mirrored, tuple(gains.tolist()), tuple(shift.tolist())
        )
        if loader.rollout and rng.random() < loader.rollout and pose >= 0 and pose != identity:
            before = int(pose_index[pose])
            if before == target:  # nearest-pose goes both ways; the target may not lead to itself
                before = -1
            choice = replace(choice, earlier=replace(choice, target=pose, pose=before, has_audio=True))
        chosen.append(choice)
    return chosen


def read_samples(
    clip: ClipView, config: TrainConfig, spec: AudioSpec, chosen: list[SampleChoice]
) -> list[Sample]:
    """Decode what the chosen samples of a clip need: each frame once, and no other."""
    size = config.model.resolution
    every = chosen + [c.earlier for c in chosen if c.earlier is not None]
    wanted = sorted({frame for c in every for frame in (c.target, c.identity, c.pose)} - {-1})
    faces = dict(zip(wanted, resize_faces(clip.frames(wanted), size), strict=True))
    faces[-1] = np.zeros((size, size, 3), np.uint8)
    targets = [c.target for c in every]
    masks = resize_masks(clip.masks(targets), size)
    times = np.array(targets, np.float64)
    windows = audio_windows(clip_audio(clip, spec), spec, config.model.audio.window, times)
    samples = [
        Sample(
            target=_shown(faces[c.target], c),
            mask=_shown_mask(mask, c),
            identity=_shown(faces[c.identity], c),
            pose=_shown(faces[c.pose], c),
            has_pose=c.pose >= 0,
            audio=window,
            has_audio=c.has_audio,
            name=f"{clip.clip_id}:{c.target}",
        )
        for c, mask, window in zip(every, masks, windows, strict=True)
    ]
    earlier = iter(samples[len(chosen) :])
    return [
        sample if c.earlier is None else replace(sample, earlier=next(earlier))
        for c, sample in zip(chosen, samples[: len(chosen)], strict=True)
    ]


def _shown(face: U8, choice: SampleChoice) -> U8:
    """The face [N,N,3] mirrored, lit and shifted as chosen, its border repeated where it leaves a gap."""
    if choice.mirrored:
        face = face[:, ::-1]
    if choice.gains != (1.0, 1.0, 1.0):
        levels = np.arange(256)[:, None] * np.array(choice.gains)
        table = np.minimum(levels + 0.5, 255).astype(np.uint8)
        face = np.stack([table[face[..., c], c] for c in range(3)], axis=-1)
    (dy, dx), size = choice.shift, len(face)
    here = np.arange(size)
    return face[np.clip(here - dy, 0, size - 1)][:, np.clip(here - dx, 0, size - 1)]


def _shown_mask(mask: Bool, choice: SampleChoice) -> Bool:
    """The mask [N,N] of a face so shown; the gap, whose repeated border may be mouth, is masked."""
    (dy, dx), size = choice.shift, len(mask)
    moved = np.ones_like(mask)
    source = mask[:, ::-1] if choice.mirrored else mask
    part = source[max(0, -dy) : size - max(0, dy), max(0, -dx) : size - max(0, dx)]
    moved[max(0, dy) : size - max(0, -dy), max(0, dx) : size - max(0, -dx)] = part
    return moved


def collate(samples: list[Sample]) -> Batch:
    """Stack samples; pictures become channels first."""

    def pictures(name: str) -> Tensor:
        return (
            torch.from_numpy(np.stack([getattr(s, name) for s in samples])).permute(0, 3, 1, 2).contiguous()
        )

    earlier = {i: s.earlier for i, s in enumerate(samples) if s.earlier is not None}
    roll_out = RollOut(torch.tensor(list(earlier)), collate(list(earlier.values()))) if earlier else None
    return Batch(
        target=pictures("target"),
        mask=torch.from_numpy(np.stack([s.mask for s in samples]))[:, None],
        identity=pictures("identity"),
        pose=pictures("pose"),
        has_pose=torch.tensor([s.has_pose for s in samples]),
        audio=torch.from_numpy(np.stack([s.audio for s in samples])),
        has_audio=torch.tensor([s.has_audio for s in samples]),
        names=tuple(s.name for s in samples),
        roll_out=roll_out,
    )


class ShardBatches(IterableDataset[Batch]):
    """The batches of one rank from the position-th on, for ever; see `loader`."""

    def __init__(
        self, config: TrainConfig, root: str, spec: AudioSpec, rank: int, world: int, position: int
    ) -> None:
        self.config, self.root, self.spec = config, root, spec
        self.rank, self.world, self.position = rank, world, position

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        workers, worker = (info.num_workers, info.id) if info else (1, 0)
        # Batches come from the workers in turn. The first asked is worker 0, so it plays the stream whose
        # turn it is at this position.
        own = (self.position + worker) % workers
        done = (self.position - own + workers - 1) // workers
        dataset = open_dataset(self.root, self.config.loader.train_split)
        groups = row_groups(dataset, trainable_rows(dataset))
        stream = SampleStream(groups, self.config, self.rank * workers + own, self.world * workers)
        size = self.config.optim.batch_size
        waiting: list[Sample] = []
        for epoch, block in stream.from_position(done * size):
            waiting += self._read(dataset, epoch, block)
            while len(waiting) >= size:
                yield collate(waiting[:size])
                waiting = waiting[size:]

    def _read(self, dataset: Dataset, epoch: int, block: list[tuple[int, int]]) -> list[Sample]:
        """Decode a block clip by clip, then return it in its shuffled order."""
        read: dict[tuple[int, int], Sample] = {}
        for row in sorted({row for row, _ in block}):
            clip = dataset[row]
            chosen = draw(clip, self.config, epoch, row)
            here = [k for r, k in block if r == row]
            samples = read_samples(clip, self.config, self.spec, [chosen[k] for k in here])
            read |= {(row, k): sample for k, sample in zip(here, samples, strict=True)}
        return [read[key] for key in block]


def loader(
    config: TrainConfig, root: str, spec: AudioSpec, rank: int = 0, world: int = 1, position: int = 0
) -> DataLoader[Batch]:
    """Batches of this rank from the position-th on. The same arguments give the same batches."""
    batches = ShardBatches(config, root, spec, rank, world, position)
    workers = config.loader.workers
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        persistent_workers=False,
        worker_init_fn=_single_thread,
    )


def _single_thread(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
