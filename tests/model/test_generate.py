"""The generator: plans, batches, and that a clip does not depend on what it is made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from syncdiff.model import generate as generate_module
from syncdiff.model.config import TrainConfig
from syncdiff.model.generate import (
    GenerationJob,
    Model,
    generate,
    identity_plan,
    initial_noise,
    load_model,
    pick_device,
    pose_plan,
    scratch,
    there_and_back,
)
from syncdiff.model.generate_split import row_job
from syncdiff.model.train import train
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.faces.reference_frames import PoseConfig, select_pose
from syncdiff.pipeline.records import CheckpointError
from syncdiff.pipeline.store.read import open_dataset

Tiny = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return load_model(trained, "cpu")


def jobs(model: Model, store: Path) -> list[GenerationJob]:
    dataset = open_dataset(store)
    return [row_job(model, clip.clip_id, clip, clip) for clip in dataset][:5]


def test_there_and_back_shows_no_jump() -> None:
    assert there_and_back(4, 10).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert there_and_back(4, 3).tolist() == [0, 1, 2]
    assert there_and_back(1, 3).tolist() == [0, 0, 0]
    assert there_and_back(2, 5).tolist() == [0, 1, 0, 1, 0]


@settings(deadline=None)
@given(frames=st.integers(2, 30), wanted=st.integers(1, 100))
def test_neighbours_stay_neighbours(frames: int, wanted: int) -> None:
    order = there_and_back(frames, wanted)
    assert len(order) == wanted and order.min() == 0 and order.max() < frames
    assert (np.abs(np.diff(order)) == 1).all()


@pytest.mark.parametrize("policy", ["previous", "offset"])
def test_pose_plan_is_the_stores_where_time_runs_forwards(policy: str) -> None:
    head = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    wanted = select_pose(head, PoseConfig(policy=policy, offset_frames=4))  # type: ignore[arg-type]
    plan = pose_plan(np.arange(12), head, {"policy": policy, "offset_frames": 4})
    assert plan.tolist() == wanted.tolist()


def test_pose_plan_counts_in_the_results_time() -> None:
    head = np.zeros((4, 3), np.float32)
    plan = pose_plan(there_and_back(4, 8), head, {"policy": "previous"})
    assert plan.tolist() == [-1, 0, 1, 2, 3, 4, 5, 6]


def test_nearest_pose_looks_back_only() -> None:
    head = np.array([0, 5, 9, 1, 6], np.float32)[:, None] * np.ones((1, 3), np.float32)
    plan = pose_plan(np.arange(5), head, {"policy": "nearest-pose", "pose_distance_frames": 2})
    assert plan.tolist() == [-1, -1, 0, 0, 1]


def test_one_identity_frame_as_far_as_possible() -> None:
    ranked = np.array([[7, 2], [7, 3], [2, 7], [3, 4], [-1, -1]])
    assert identity_plan(np.arange(5), ranked).tolist() == [7, 7, 7, 3, (4 + 2) % 5]
    assert identity_plan(np.array([3, 0, 0]), ranked).tolist() == [3, 7, 7]


def test_what_is_batched_together_does_not_matter(model: Model, store: Path) -> None:
    alone, together = (
        {job.name: job.generated for job in generate(model, jobs(model, store), n)} for n in (1, 4)
    )
    assert alone.keys() == together.keys() and len(alone) == 5
    for name in alone:
        difference = np.abs(alone[name].astype(int) - together[name])
        assert difference.max() <= 1, "only rounding may differ"


def test_batches_are_full_while_there_is_work(
    model: Model, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = generate_module.generate_frames
    monkeypatch.setattr(
        generate_module, "generate_frames", lambda m, turn: sizes.append(len(turn)) or original(m, turn)
    )
    total = sum(len(job.order) for job in generate(model, jobs(model, store), 3))
    assert sum(sizes) == total and set(sizes[:26]) == {3}


def test_without_pose_frames_a_single_clip_fills_the_batch(store: Path, tiny: Tiny, tmp_path: Path) -> None:
    train(
        tiny(data=str(store), out=str(tmp_path), model={"pose": {"bottleneck": "off"}}, optim={"steps": 1}),
        lambda text: None,
    )
    model = load_model(tmp_path, "cpu")
    job = jobs(model, store)[0]
    assert job.ready(8) == range(8)
    assert len(next(generate(model, [job], 8)).generated) == len(job.order)


def test_a_frame_waits_for_its_pose_frame(model: Model, store: Path) -> None:
    job = jobs(model, store)[0]
    assert job.ready(8) == range(1)
    job = replace(job, pose_from=np.where(np.arange(len(job.order)) >= 3, np.arange(len(job.order)) - 3, -1))
    assert job.ready(8) == range(3)


def test_each_frame_is_shown_the_one_made_before(
    model: Model, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[np.ndarray] = []
    original = generate_module.frame_sample

    def spy(m: Model, job: GenerationJob, frame: int) -> object:
        sample = original(m, job, frame)
        shown.append(sample.pose.copy())
        assert sample.has_pose == (frame > 0)
        return sample

    monkeypatch.setattr(generate_module, "frame_sample", spy)
    job = next(generate(model, jobs(model, store)[:1], 1))
    assert not shown[0].any()
    assert all(np.array_equal(a, b) for a, b in zip(shown[1:], job.generated, strict=False))


def test_one_noise_a_clip(model: Model) -> None:
    assert torch.equal(initial_noise(model, "a"), initial_noise(model, "a"))
    assert not torch.equal(initial_noise(model, "a"), initial_noise(model, "b"))
    assert initial_noise(model, "a").shape == (3, 32, 32)


def test_outside_the_mask_the_source_stays(model: Model, store: Path) -> None:
    job = next(generate(model, jobs(model, store)[:1], 1))
    faces = job.face.frames(range(len(job.order)))
    masks = job.face.masks(range(len(job.order)))
    assert np.array_equal(job.generated[~masks], faces[~masks])
    assert not np.array_equal(job.generated[masks], faces[masks])


def test_sampling_can_be_chosen_and_is_checked(trained: Path) -> None:
    model = load_model(trained, "cpu", sampler="dpm++", sampling_steps=7, guidance=None)
    assert (model.diffusion.sampler, model.diffusion.sampling_steps, model.diffusion.guidance) == (
        "dpm++",
        7,
        1.0,
    )
    with pytest.raises(ConfigError, match="sampling_steps"):
        load_model(trained, "cpu", sampling_steps=0)


def test_guidance_changes_the_result(trained: Path, store: Path) -> None:
    generated = [
        next(generate(model, jobs(model, store)[:1], 1)).generated
        for model in (load_model(trained, "cpu", guidance=g) for g in (1.0, 4.0))
    ]
    assert not np.array_equal(*generated)


def test_no_gpu_and_no_checkpoint_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="--device cpu"):
        pick_device("cuda")
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        load_model(tmp_path, "cpu")


def test_latent_space_generates(store: Path, tiny: Tiny, tmp_path: Path, autoencoder: Path) -> None:
    space = {"space": "latent", "autoencoder": str(autoencoder)}
    train(tiny(data=str(store), out=str(tmp_path), model=space, optim={"steps": 1}), lambda text: None)
    model = load_model(tmp_path, "cpu")
    assert initial_noise(model, "a").shape == (4, 16, 16)
    generated = next(generate(model, jobs(model, store)[:1], 1)).generated
    assert generated.shape[1:] == (32, 32, 3)


def test_scratch_goes_to_disk_when_large(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not isinstance(scratch((2, 4)), np.memmap)
    monkeypatch.setattr(generate_module, "SCRATCH_BYTES", 10)
    large = scratch((3, 4))
    assert isinstance(large, np.memmap) and not large.any()
    large[1] = 7
    assert large.sum() == 28
