"""Nothing that the network is given may depend on the target's mouth.

For every mask kind, pose policy, frame (the first among them), size and space: repaint the target inside its
mask, and no condition changes. While generating, no input at all changes. (In training the noisy picture is
the target's, noised; that is what is to be learned.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from syncdiff.model.audio import AudioSpec
from syncdiff.model.config import TrainConfig
from syncdiff.model.data import SampleChoice, collate, draw, read_samples
from syncdiff.model.diffusion import sample
from syncdiff.model.generate import GenerationJob, frame_sample, make_job, there_and_back
from syncdiff.model.network import Conditions
from syncdiff.model.space import LatentSpace, Space, prepare, training_target
from syncdiff.pipeline.faces.mask import MaskConfig, mouth_masks
from syncdiff.pipeline.faces.reference_frames import PoseConfig, select

FRAMES, SIZE = 14, 48
SPEC = AudioSpec("logfbank", 104, 25.0, 5)
Tiny = Callable[..., TrainConfig]


@dataclass(frozen=True)
class FakeClip:
    """A row of a data set, in memory and undistorted by JPEG."""

    faces: NDArray[np.uint8]
    marked: NDArray[np.bool_]
    columns: dict[str, NDArray[Any]]
    clip_id: str = "clip"
    num_frames: int = FRAMES

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        return self.faces[list(indices)]

    def masks(self, indices: Sequence[int]) -> NDArray[np.bool_]:
        return self.marked[list(indices)]

    def column(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def features(self, name: str) -> NDArray[np.float32]:
        return np.random.default_rng(5).standard_normal((FRAMES, 104)).astype(np.float32)


def make_clip(kind: str, policy: str, seed: int, points: NDArray[np.float32]) -> FakeClip:
    rng = np.random.default_rng(seed)
    masks = mouth_masks(points, SIZE, MaskConfig(kind=kind))  # type: ignore[arg-type]
    pose = PoseConfig(policy=policy, offset_frames=3, pose_distance_frames=2, identity_distance_frames=2)  # type: ignore[arg-type]
    head = rng.standard_normal((FRAMES, 3)).astype(np.float32) * 10
    chosen = select(head, rng.random(FRAMES).astype(np.float32), np.ones(FRAMES, np.float32), pose)
    faces = rng.integers(0, 256, (FRAMES, SIZE, SIZE, 3)).astype(np.uint8)
    columns = {
        "pose_index": chosen.pose_index,
        "identity_index": chosen.identity_index,
        "head_pose_deg": chosen.head_pose_deg,
    }
    return FakeClip(faces, masks, columns)


def repainted(clip: FakeClip, frame: int, seed: int) -> FakeClip:
    """The clip with other pixels inside the mask of one frame."""
    faces = clip.faces.copy()
    inside = clip.marked[frame]
    faces[frame][inside] = np.random.default_rng(seed).integers(0, 256, (int(inside.sum()), 3))
    return FakeClip(faces, clip.marked, clip.columns)


def same(a: Conditions, b: Conditions) -> bool:
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


@pytest.fixture(scope="module")
def spaces(autoencoder: Path) -> dict[str, Space]:
    return {"pixel": Space(), "latent": LatentSpace(str(autoencoder))}


@pytest.fixture(scope="module")
def points() -> NDArray[np.float32]:
    """Landmarks [T,68,2] of a face whose mouth lies in the lower half."""
    rng = np.random.default_rng(0)
    base = rng.uniform(8, 40, (68, 2))
    base[48:] = rng.uniform((16, 30), (32, 40), (20, 2))
    return (base + rng.normal(0, 1, (FRAMES, 68, 2))).astype(np.float32)


KINDS = st.sampled_from(["lower-half", "mouth-box", "landmarks"])
POLICIES = st.sampled_from(["previous", "offset", "nearest-pose"])
SIZES = st.sampled_from([16, 32, 48, 64])
FRAME = st.one_of(st.just(0), st.integers(0, FRAMES - 1))
SPACES = st.sampled_from(["pixel", "latent"])
EASY = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@EASY
@given(
    kind=KINDS,
    policy=POLICIES,
    size=SIZES,
    frame=FRAME,
    where=SPACES,
    seed=st.integers(0, 99),
    lit=st.booleans(),
)
def test_training_conditions(
    kind: str, policy: str, size: int, frame: int, where: str, seed: int, lit: bool,
    tiny: Tiny, spaces: dict[str, Space], points: NDArray[np.float32],
) -> None:  # fmt: skip
    config = tiny(model={"resolution": size})
    clip = make_clip(kind, policy, seed, points)
    identity = (frame + 1 + seed % (FRAMES - 1)) % FRAMES
    pose = int(clip.columns["pose_index"][frame])
    gains = (1.3, 0.7, 1.0) if lit else (1.0, 1.0, 1.0)
    choice = [
        SampleChoice(frame, identity, pose, True, lit, gains, (seed % 5 - 2, seed % 7 - 3) if lit else (0, 0))
    ]
    results = []
    for one in (clip, repainted(clip, frame, seed + 1)):
        batch = collate(read_samples(one, config, SPEC, choice))  # type: ignore[arg-type]
        masked_input, mask, conditions = prepare(batch, spaces[where])
        target = training_target(batch, masked_input, mask, spaces[where])
        results.append((masked_input, mask, conditions, target.masked_fill(mask, 0.0), target))
    (
        (masked_input, mask, conditions, outside, target),
        (masked_input2, mask2, conditions2, outside2, target2),
    ) = results
    assert torch.equal(masked_input, masked_input2) and torch.equal(mask, mask2)
    assert same(conditions, conditions2)
    assert torch.equal(outside, outside2), "what surrounds the mouth in the noisy picture must not tell of it"
    assert not torch.equal(target, target2), (
        "the repainting has to be in what is learned, or this tests nothing"
    )


@EASY
@given(kind=KINDS, policy=POLICIES, size=SIZES, frame=FRAME, where=SPACES, seed=st.integers(0, 99))
def test_every_input_while_generating(
    kind: str, policy: str, size: int, frame: int, where: str, seed: int,
    tiny: Tiny, spaces: dict[str, Space], points: NDArray[np.float32],
) -> None:  # fmt: skip
    config = tiny(model={"resolution": size})
    settings_ = {"policy": policy, "offset_frames": 3, "pose_distance_frames": 2}
    model: Any = SimpleNamespace(config=config, preparation={"pose": settings_}, spec=SPEC)
    clip = make_clip(kind, policy, seed, points)
    recorded = []
    for one in (clip, repainted(clip, frame, seed + 1)):
        job = _job(model, one, frame)
        batch = collate([frame_sample(model, job, frame)])
        masked_input, mask, conditions = prepare(batch, spaces[where])
        inputs: list[torch.Tensor] = []

        def record(noisy: torch.Tensor, steps: torch.Tensor, given: Conditions) -> torch.Tensor:
            inputs.extend([noisy.clone(), *(getattr(given, f.name) for f in fields(given))])  # noqa: B023
            return noisy * 0.5

        noise = torch.randn(masked_input.shape, generator=torch.Generator().manual_seed(seed))
        inputs.append(sample(record, config.diffusion, masked_input, mask, conditions, noise, True))
        recorded.append(inputs)
    assert all(torch.equal(a, b) for a, b in zip(*recorded, strict=True))


def _job(model: Any, clip: FakeClip, frame: int) -> GenerationJob:
    """A job of which all frames before `frame` are made."""
    sound = np.zeros((FRAMES, 5, 104), np.float32)
    ranked, head = clip.columns["identity_index"], clip.columns["head_pose_deg"]
    job = make_job(model, "clip", clip, there_and_back(FRAMES, FRAMES), ranked, head, sound)
    job.generated[:frame] = np.random.default_rng(1).integers(0, 256, job.generated[:frame].shape)
    job.done = frame
    return job


@EASY
@given(policy=POLICIES, seed=st.integers(0, 999), epoch=st.integers(0, 3))
def test_the_target_is_never_drawn_as_its_own_condition(
    policy: str, seed: int, epoch: int, tiny: Tiny, points: NDArray[np.float32]
) -> None:
    clip = make_clip("lower-half", policy, seed, points)
    for identity in ("random", "ranked"):
        config = tiny(loader={"identity": identity, "frames_per_clip": 40, "rollout": 0.5}, seed=seed)
        for choice in draw(clip, config, epoch, 0):  # type: ignore[arg-type]
            assert choice.identity != choice.target
            assert choice.pose != choice.target
            if (earlier := choice.earlier) is not None:
                assert earlier.target == choice.pose
                assert choice.target not in (earlier.target, earlier.identity, earlier.pose)
                assert earlier.target not in (earlier.identity, earlier.pose)


@pytest.mark.parametrize("policy", ["previous", "offset", "nearest-pose"])
def test_no_frame_of_a_job_conditions_itself(policy: str, tiny: Tiny, points: NDArray[np.float32]) -> None:
    settings_ = {"policy": policy, "offset_frames": 3, "pose_distance_frames": 2}
    model: Any = SimpleNamespace(config=tiny(), preparation={"pose": settings_}, spec=SPEC)
    job = _job(model, make_clip("lower-half", policy, 3, points), 0)
    here = np.arange(FRAMES)
    assert (job.pose_from < here).all(), "a pose frame is one made before"
    assert (job.identity != job.order).all()
