"""Gaps and jitter: what smoothing removes, and what it must leave."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from syncdiff.pipeline.faces.backend import MEAN_SHAPE
from syncdiff.pipeline.faces.head_pose import interocular_px, mouth_opening
from syncdiff.pipeline.faces.smooth import fill_gaps, smooth_landmarks, wiener
from syncdiff.pipeline.records import F32


def still_head(frames: int = 120, side_px: float = 120.0) -> F32:
    return np.repeat(MEAN_SHAPE[None] * np.float32(side_px) + 50, frames, axis=0)


def jitter(frames: int, sd_px: float, seed: int = 0) -> F32:
    return np.random.default_rng(seed).normal(0, sd_px, (frames, 68, 2)).astype(np.float32)


def spread(landmarks: F32) -> float:
    """Mean distance of the points from where they are on average, in distances between the eyes."""
    off = landmarks[:, 17:48] - landmarks[:, 17:48].mean(axis=0)
    return float(np.hypot(*np.moveaxis(off, -1, 0)).mean() / interocular_px(landmarks).mean())


def test_gaps_are_filled_in_a_straight_line() -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    detected = np.array([True, True, False, False, True, True])
    filled = fill_gaps(np.where(detected[:, None], values, 99).astype(np.float32), detected)
    np.testing.assert_allclose(filled, values)
    assert filled.dtype == np.float32
    assert fill_gaps(values, np.ones(6, np.bool_)) is values


def test_a_still_head_comes_to_rest() -> None:
    noisy = still_head() + jitter(120, 0.3)  # 0.6 % of the distance between the eyes
    assert spread(smooth_landmarks(noisy, 9)) < 0.5 * spread(noisy)


def test_a_moving_head_is_followed() -> None:
    """A nod of 20 px within 5 frames and a shake at 3 a second are kept to a fraction of a pixel."""
    time = np.arange(120)
    nod = 20 / (1 + np.exp(-(time - 40) / 0.7))
    shake = 6 * np.sin(2 * np.pi * 3 * time / 25) * (time > 70)
    moving = still_head()
    moving[..., 1] += nod[:, None].astype(np.float32)
    moving[..., 0] += shake[:, None].astype(np.float32)
    error = np.abs(smooth_landmarks(moving, 9) - moving)
    assert error.max() < 0.6 and error.mean() < 0.1


def test_smoothing_does_not_lag() -> None:
    """A step comes out symmetric in time: the reversed input gives the reversed output."""
    moving = still_head(60)
    moving[30:, :, 0] += 3
    noisy = moving + jitter(60, 0.2)
    there = smooth_landmarks(noisy, 9)
    back = smooth_landmarks(np.ascontiguousarray(noisy[::-1]), 9)[::-1]
    np.testing.assert_allclose(there, back, atol=1e-3)


def test_the_mouth_is_left_alone() -> None:
    talking = still_head() + jitter(120, 0.2)
    talking[::7, 60:68, 1] += 8  # closures and openings of a single frame
    smoothed = smooth_landmarks(talking, 9)
    np.testing.assert_array_equal(smoothed[:, 48:], talking[:, 48:])
    before, after = mouth_opening(talking), mouth_opening(smoothed)
    lags = range(-5, 6)
    middle = slice(10, 110)
    agreement = [np.corrcoef(before[middle], np.roll(after, -lag)[middle])[0, 1] for lag in lags]
    assert lags[int(np.argmax(agreement))] == 0
    assert after.std() == pytest.approx(before.std(), rel=0.03)


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 8, 9])
def test_short_tracks(frames: int) -> None:
    noisy = still_head(frames) + jitter(frames, 0.3)
    smoothed = smooth_landmarks(noisy, 9)
    assert smoothed.shape == noisy.shape and smoothed.dtype == np.float32 and np.isfinite(smoothed).all()
    if frames < 5:
        assert smoothed is noisy


def test_a_window_of_one_changes_nothing() -> None:
    noisy = still_head() + jitter(120, 0.3)
    assert smooth_landmarks(noisy, 1) is noisy


@pytest.mark.parametrize("order", [0, 2])
def test_wiener_takes_noise_and_leaves_signal(order: int) -> None:
    rng = np.random.default_rng(1)
    noise: NDArray[np.complex128] = rng.normal(size=(400, 20)) + 1j * rng.normal(size=(400, 20))
    at_noise_level = wiener(noise, 1.0, 9, order)
    assert np.abs(at_noise_level).std() < 0.75 * np.abs(noise).std()
    np.testing.assert_allclose(wiener(100 * noise, 1.0, 9, order), 100 * noise, rtol=0.01, atol=0.1)


def test_landmarks_in_one_point_stay_finite() -> None:
    assert np.isfinite(smooth_landmarks(np.full((20, 68, 2), 5, np.float32), 9)).all()
