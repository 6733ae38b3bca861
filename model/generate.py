"""Generation: jobs in lockstep, frame after frame as the pose frames demand, a full batch at every step.

A frame can be generated as soon as its pose frame is. With the previous frame as pose frame a clip gives one
frame at a time, so a batch holds as many clips; with no pose frame, any frames. Nothing of a clip depends on
what it is batched with: its initial noise, one for all its frames, follows from its name.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from syncdiff.model import checkpoint as ckpt
from syncdiff.model.audio import AudioSpec
from syncdiff.model.config import DiffusionConfig, TrainConfig, from_mapping
from syncdiff.model.data import Sample, collate, resize_faces, resize_masks
from syncdiff.model.diffusion import sample
from syncdiff.model.finetune_avhubert import TunedHubert
from syncdiff.model.network import AudioStats, SyncDiffNet
from syncdiff.model.space import Space, make_space, prepare, to_uint8
from syncdiff.pipeline.avhubert.encoder import EncoderConfig
from syncdiff.pipeline.config import ConfigError, with_settings
from syncdiff.pipeline.records import F32, U8, Bool, CheckpointError

Index = NDArray[np.int64]
SCRATCH_BYTES = 1 << 29  # of pictures in memory; more go to a file


class Face(Protocol):
    """Crops of one face and their mouth masks, by frame: a row of a data set, or a track of a video."""

    def frames(self, indices: Sequence[int]) -> U8:
        """[n,N,N,3] RGB."""

    def masks(self, indices: Sequence[int]) -> Bool:
        """[n,N,N], True where the mouth is to be generated."""


@dataclass(frozen=True)
class Model:
    """A trained network ready to generate, and the mask, pose and feature settings it was trained with."""

    config: TrainConfig
    diffusion: DiffusionConfig
    net: SyncDiffNet
    space: Space
    spec: AudioSpec
    preparation: dict[str, Any]
    extractor: dict[str, Any]
    step: int
    device: torch.device


@dataclass
class GenerationJob:
    """A clip to be generated, n frames long.

    order [n]: which frame of `face` each shows; identity [n]: frames of `face`; pose_from [n]: earlier frames
    of the result, or -1; audio [n,L,D]; generated [n,R,R,3] is filled in order, `done` frames so far.
    """

    name: str
    face: Face
    order: Index
    identity: Index
    pose_from: Index
    audio: F32
    generated: U8
    done: int = 0

    def ready(self, most: int) -> range:
        """The next frames whose pose frames are generated, at most so many."""
        stop = self.done
        while stop < len(self.order) and stop - self.done < most and self.pose_from[stop] < self.done:
            stop += 1
        return range(self.done, stop)


def load_model(path: Path, device: str = "auto", **sampling: Any) -> Model:
    """Load the averaged weights of a checkpoint; `sampling` replaces fields of its DiffusionConfig.

    Raises CheckpointError for a checkpoint that cannot be read, ConfigError for settings that cannot be used.
    """
    place = pick_device(device)
    checkpoint = ckpt.find(path)
    state = ckpt.read_state(checkpoint)
    try:
        config = from_mapping(state["config"], str(checkpoint))
        spec = AudioSpec(**state["audio"])
        hubert = EncoderConfig(**state["hubert"]) if state["hubert"] else None
        facts = {name: state[name] for name in ("preparation", "extractor", "step")}
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{checkpoint}: state.json is not what a training writes: {error!r}") from error
    space = make_space(config.model)

    def build() -> SyncDiffNet:
        encoder, width, steps = None, spec.width, spec.steps
        if hubert is not None:
            encoder = TunedHubert(hubert, config.model.audio)
            width, steps = encoder.model.config.width, config.model.audio.window
        stats = AudioStats(torch.zeros(width), torch.ones(width))  # the true ones come with the weights
        side = config.model.resolution // space.downsample
        return SyncDiffNet(config.model, space.channels, side, stats, steps, encoder)

    try:
        with torch.device("meta"):  # shapes without memory: a hostile checkpoint may ask for any size
            claimed = sum(t.nbytes for t in build().state_dict().values())
    except (RuntimeError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{checkpoint}: no network can be built as state.json says: {error}") from error
    if claimed > (present := sum(t.nbytes for t in ckpt.read_tensors(checkpoint, "ema").values())):
        raise CheckpointError(f"{checkpoint}: its network takes {claimed} bytes, its weights are {present}")
    net = build()
    ckpt.load_into(net, checkpoint, "ema")
    net.eval().requires_grad_(False).to(place)
    return Model(
        config=config,
        diffusion=with_settings(
            config.diffusion, {k: v for k, v in sampling.items() if v is not None}, "command line"
        ),
        net=net,
        space=space.to(place),
        spec=spec,
        **facts,
        device=place,
    )


def pick_device(device: str) -> torch.device:
    """auto takes a GPU if there is one. Raises ConfigError for cuda without one."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: PyTorch finds no CUDA device here; use --device cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def generate(model: Model, jobs: Iterable[GenerationJob], batch: int) -> Iterator[GenerationJob]:
    """Generate the frames of all jobs, at most `batch` at a time, and yield each job when it is complete.

    `jobs` is drawn from as places become free, so that only those at work are in memory.
    """
    waiting = iter(jobs)
    active: list[GenerationJob] = []
    while True:
        while len(active) < batch and (job := next(waiting, None)) is not None:
            active.append(job)
        if not active:
            return
        turn: list[tuple[GenerationJob, int]] = []
        for job in active:
            turn += [(job, frame) for frame in job.ready(batch - len(turn))]
        pictures = generate_frames(model, turn)
        for (job, frame), picture in zip(turn, pictures, strict=True):
            job.generated[frame] = picture
            job.done += 1
        yield from (job for job in active if job.done == len(job.order))
        # Those that did not get a place this time come first the next time.
        served = {id(job) for job, _ in turn}
        active = [job for job in active if job.done < len(job.order)]
        active.sort(key=lambda job: id(job) in served)


def generate_frames(model: Model, turn: Sequence[tuple[GenerationJob, int]]) -> U8:
    """One frame of each of these (job, frame) pairs: [B,R,R,3]."""
    batch = collate([frame_sample(model, job, frame) for job, frame in turn]).to(model.device)
    noise = torch.stack([initial_noise(model, job.name) for job, _ in turn]).to(model.device)
    masked_input, mask, conditions = prepare(batch, model.space)
    generated = sample(model.net, model.diffusion, masked_input, mask, conditions, noise, model.space.clip)
    pictures: U8 = to_uint8(model.space.decode(generated)).permute(0, 2, 3, 1).cpu().numpy()
    return pictures


def frame_sample(model: Model, job: GenerationJob, frame: int) -> Sample:
    """What the network needs for one frame of a job; the target's masked pixels never leave here."""
    size = model.config.model.resolution
    source, pose = int(job.order[frame]), int(job.pose_from[frame])
    target, identity = resize_faces(job.face.frames([source, int(job.identity[frame])]), size)
    mask = resize_masks(job.face.masks([source]), size)[0]
    return Sample(
        target=np.where(mask[..., None], np.uint8(0), target),
        mask=mask,
        identity=identity,
        pose=job.generated[pose] if pose >= 0 else np.zeros_like(target),
        has_pose=pose >= 0,
        audio=job.audio[frame],
        has_audio=True,
        name=f"{job.name}:{frame}",
    )


def initial_noise(model: Model, name: str) -> torch.Tensor:
    """The one noise [C,S,S] of a clip, from the seed and its name."""
    seed = hashlib.sha256(f"{model.config.seed}:{name}".encode()).digest()
    side = model.config.model.resolution // model.space.downsample
    generator = torch.Generator().manual_seed(int.from_bytes(seed[:8], "little") >> 1)
    return torch.randn(model.space.channels, side, side, generator=generator)


def there_and_back(frames: int, wanted: int) -> Index:
    """Frames to show for `wanted` output frames: forwards, and where they end backwards, and so on.

    No jump is seen, unlike with starting over. A source longer than needed is cut.
    """
    if frames == 1:
        return np.zeros(wanted, np.int64)
    period = np.concatenate([np.arange(frames), np.arange(frames - 2, 0, -1)])
    return period[np.arange(wanted) % len(period)]


def pose_plan(order: Index, head_pose_deg: F32, settings: dict[str, Any]) -> Index:
    """The pose frame of each frame of a result: the policy of `faces.reference_frames`, but only frames
    generated before.

    `previous` and `offset` count in the result's time. `nearest-pose` may name later frames in training; here
    it is the frame of the most similar head pose among those generated already, at least
    `pose_distance_frames` away.
    """
    here = np.arange(len(order))
    if settings["policy"] == "nearest-pose":
        plan = np.full(len(order), -1, np.int64)
        pose = head_pose_deg[order].astype(np.float64)
        for t in range(settings["pose_distance_frames"], len(order)):
            before = pose[: t - settings["pose_distance_frames"] + 1]
            plan[t] = np.square(before - pose[t]).sum(axis=1).argmin()
        return plan
    offset = 1 if settings["policy"] == "previous" else settings["offset_frames"]
    return np.where(here >= offset, here - offset, -1)


def identity_plan(order: Index, ranked: NDArray[np.integer[Any]]) -> Index:
    """The identity frame of each output frame, from the ranking [T,K] of each source frame.

    One frame for the whole clip as far as possible, so that the face does not change: the one ranked first
    most often. A frame that may not use it (too near in time) takes its own best; without any, the frame half
    a clip away.
    """
    frames = len(ranked)
    first = ranked[:, 0][ranked[:, 0] >= 0]
    common = int(np.bincount(first).argmax()) if len(first) else -1
    allowed = (ranked == common).any(axis=1) & (common >= 0)
    own = np.where(ranked[:, 0] >= 0, ranked[:, 0], (np.arange(frames) + max(1, frames // 2)) % frames)
    return np.asarray(np.where(allowed, common, own)[order], np.int64)


def make_job(
    model: Model, name: str, face: Face, order: Index, ranked: NDArray[Any], head_pose: F32, audio: F32
) -> GenerationJob:
    """A job with nothing generated yet.

    It shows frames `order` [n] of `face`, whose reference frames are ranked [T,K] and whose head pose is
    [T,3], and speaks the sound [n,L,D].
    """
    size = model.config.model.resolution
    off = model.config.model.pose.bottleneck == "off"
    plan = np.full(len(order), -1) if off else pose_plan(order, head_pose, model.preparation["pose"])
    generated = scratch((len(order), size, size, 3))
    return GenerationJob(name, face, order, identity_plan(order, ranked), plan, audio, generated)


def scratch(shape: tuple[int, ...]) -> U8:
    """Room for uint8 pictures: in memory, or where they are many in a file that goes away with the array."""
    if math.prod(shape) <= SCRATCH_BYTES:
        return np.zeros(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)
