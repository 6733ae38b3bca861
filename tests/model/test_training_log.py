"""Validation while training: what is generated for it, and its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from syncdiff.model.config import TrainConfig
from syncdiff.model.generate import GenerationJob, Model, generate
from syncdiff.model.generate_split import row_job
from syncdiff.model.training_log import (
    clip_strip,
    first_frames,
    from_true_pose,
    loss_by_noise,
    psnr_in_mask,
    restarted,
)
from syncdiff.model.training_run import TrainingRun, averaged_model, open_run

Tiny = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def run(store: Path, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """A run without a step taken."""
    return open_run(tiny(data=str(store), out=str(tmp_path_factory.mktemp("run"))), lambda text: None)


@pytest.fixture(scope="module")
def model(run: TrainingRun) -> Model:
    return averaged_model(run)


@pytest.fixture(scope="module")
def job(run: TrainingRun, model: Model) -> GenerationJob:
    clip = run.validation[0]
    return first_frames(row_job(model, clip.clip_id, clip, clip), 7)


def test_true_pose_frames_matter_from_the_second_frame_on(model: Model, job: GenerationJob) -> None:
    """The first frame has no pose frame; the second has the one that was made, or the true one."""
    free = next(generate(model, [restarted(job)], 4)).generated
    guided = from_true_pose(model, job, 4).generated
    assert len(free) == len(guided) == 7
    assert np.abs(free[0].astype(int) - guided[0]).max() <= 1, "only rounding may differ"
    assert not np.array_equal(free[1:], guided[1:])
    fed = replace(restarted(job), generated=job.face.frames(range(7)), done=6)
    [last] = [done.generated[6] for done in generate(model, [fed], 1)]
    assert np.abs(last.astype(int) - guided[6]).max() <= 1


def test_psnr_counts_the_masks_only(job: GenerationJob) -> None:
    truth, mask = job.face.frames(range(7)), job.face.masks(range(7))
    off = np.where(mask[..., None], np.where(truth > 127, truth - 10, truth + 10), 255 - truth)
    assert psnr_in_mask([replace(job, generated=off.astype(np.uint8))]) == pytest.approx(28.13, abs=0.01)


def test_a_strip_hides_shows_and_tells(job: GenerationJob) -> None:
    done = replace(job, generated=np.full_like(job.generated, 7))
    strip = clip_strip(done)
    side = job.generated.shape[1]
    assert strip.shape == (3 * side, 6 * side, 3)
    masked, made, truth = np.split(strip, 3)
    assert np.array_equal(truth[:, :side], job.face.frames([0])[0])
    assert (made == 7).all()
    mask = job.face.masks([0])[0]
    assert (masked[:, :side][mask] == 128).all() and np.array_equal(
        masked[:, :side][~mask], truth[:, :side][~mask]
    )


def test_the_loss_by_noise_is_the_same_every_time(run: TrainingRun, model: Model) -> None:
    clips = [run.validation[0]]
    losses = loss_by_noise(run, model, clips)
    assert list(losses) == [125, 375, 625, 875] and losses == loss_by_noise(run, model, clips)
