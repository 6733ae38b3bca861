"""The choice of pose frames and of identity references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncdiff.pipeline.faces import reference_frames
from syncdiff.pipeline.faces.reference_frames import PoseConfig


def random_poses(frames, seed=0):
    return np.random.default_rng(seed).uniform(-30, 30, (frames, 3)).astype(np.float32)


def test_previous_is_the_frame_before():
    np.testing.assert_array_equal(reference_frames.select_pose(random_poses(5)), [-1, 0, 1, 2, 3])


def test_offset_looks_back_by_k():
    chosen = reference_frames.select_pose(random_poses(6), PoseConfig("offset", offset_frames=4))
    np.testing.assert_array_equal(chosen, [-1, -1, -1, -1, 0, 1])


@pytest.mark.parametrize("frames", [3, 40, 1100])
def test_nearest_pose_is_the_nearest_among_frames_far_enough(frames):
    angles = random_poses(frames)
    chosen = reference_frames.select_pose(angles, PoseConfig("nearest-pose", pose_distance_frames=6))
    for t in range(0, frames, 7):
        far = [other for other in range(frames) if abs(other - t) >= 6]
        gap = {other: float(((angles[t] - angles[other]) ** 2).sum()) for other in far}
        assert chosen[t] == (min(gap, key=gap.__getitem__) if far else -1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90),
    st.sampled_from(["previous", "offset", "nearest-pose"]),
    st.integers(1, 30),
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(0, 5),
)
def test_no_frame_is_its_own_condition(frames, policy, distance, spacing, identities, seed):
    rng = np.random.default_rng(seed)
    config = PoseConfig(policy, distance, distance, identities, distance, spacing)
    usable = rng.random(frames) > 0.3
    opening, sharp = rng.random(frames).astype(np.float32), rng.random(frames).astype(np.float32)
    chosen = reference_frames.select(random_poses(frames, seed), opening, sharp, config, usable)
    here = np.arange(frames)[:, None]
    assert chosen.identity_index.shape == (frames, identities)
    assert (chosen.pose_index < frames).all() and (chosen.identity_index < frames).all()
    named = chosen.identity_index >= 0
    assert (np.abs(chosen.identity_index - here) >= distance)[named].all()
    assert usable[chosen.identity_index[named]].all()
    assert not (named & (chosen.identity_index == chosen.pose_index[:, None])).any()
    for row in chosen.identity_index:
        found = row[row >= 0]
        assert len(set(found)) == len(found)
        assert (row[len(found) :] == -1).all()


def flat_clip(frames=100):
    return np.zeros((frames, 3), np.float32), np.full(frames, 0.1, np.float32), np.ones(frames, np.float32)


def test_references_are_sharp():
    angles, opening, sharp = flat_clip()
    sharp[:60] = 0.2
    assert (reference_frames.select_identity(angles, opening, sharp)[:, 0] >= 60).all()


def test_references_are_frontal():
    angles, opening, sharp = flat_clip()
    angles[:60, 1] = 40
    assert (reference_frames.select_identity(angles, opening, sharp)[:, 0] >= 60).all()


def test_the_mouths_of_the_references_span_the_clip():
    angles, opening, sharp = flat_clip(200)
    opening[:] = np.random.default_rng(0).choice(np.float32([0.0, 0.1, 0.2, 0.3]), 200)
    config = PoseConfig(identities=4, identity_spacing_frames=1)
    mouths = opening[reference_frames.select_identity(angles, opening, sharp, config)]
    assert (mouths.min(axis=1) == 0).all() and (mouths.max(axis=1) > 0.25).all()
    # So among them is always one that differs from the frame's own.
    assert (np.abs(mouths - opening[:, None]).max(axis=1) >= 0.1).all()


@pytest.mark.parametrize("seed", range(3))
def test_references_do_not_tell_the_mouth_of_their_frame(seed):
    """The opening of the best reference says next to nothing about the opening of the frame itself."""
    rng = np.random.default_rng(seed)
    angles, _, sharp = flat_clip(400)
    sharp += 0.3 * rng.standard_normal(400).astype(np.float32)
    opening = (0.1 + 0.1 * np.sin(np.cumsum(rng.uniform(0.2, 1.2, 400)))).astype(np.float32)
    chosen = reference_frames.select_identity(angles, opening, sharp)
    for rank in range(3):
        told = opening[chosen[:, rank]]
        assert told.std() == 0 or abs(np.corrcoef(told, opening)[0, 1]) < 0.25


def test_references_are_far_in_time():
    angles, opening, sharp = flat_clip()
    best = reference_frames.select_identity(angles, opening, sharp)[:, 0]
    assert (np.abs(best - np.arange(100)) >= 25).all()


def test_references_of_a_long_clip_come_from_all_of_it():
    rng = np.random.default_rng(0)
    opening, sharp = rng.random(6000).astype(np.float32), rng.random(6000).astype(np.float32)
    chosen = reference_frames.select_identity(random_poses(6000), opening, sharp)
    assert chosen.shape == (6000, 5)
    assert (chosen >= 0).all()


def test_short_clips_have_no_references():
    angles, opening, sharp = flat_clip(10)
    assert (reference_frames.select_identity(angles, opening, sharp) == -1).all()


def test_openings_that_are_no_numbers_do_not_matter():
    angles, opening, sharp = flat_clip()
    opening[7] = np.nan
    assert (reference_frames.select_identity(angles, opening, sharp) >= 0).all()


@pytest.mark.parametrize(
    "wrong", [{"policy": "next"}, {"offset_frames": 0}, {"identities": 0}, {"identity_spacing_frames": 0}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=r"policy|greater than 0"):
        PoseConfig(**wrong)
