"""Landmarks of one track made continuous: gaps filled, jitter removed without delaying the mouth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import savgol_filter

from syncdiff.pipeline.detect import MEAN_SHAPE
from syncdiff.pipeline.records import F32, Bool

JAW = slice(0, 17)
BROWS_NOSE_EYES = slice(17, 48)
MOUTH = slice(48, 68)


def fill_gaps(values: F32, known: Bool) -> F32:
    """`values` [T,...] with the rows that are not `known` [T] interpolated in a straight line."""
    if known.all():
        return values
    frames = np.arange(len(values))
    flat = values.reshape(len(values), -1)
    filled = np.stack([np.interp(frames, frames[known], column[known]) for column in flat.T], axis=1)
    return filled.reshape(values.shape).astype(np.float32)


def smooth_landmarks(landmarks_px: F32, rigid_window: int, feature_sigma: float, jaw_sigma: float) -> F32:
    """Landmarks [T,68,2] with less jitter and no lag: every filter is symmetric in time.

    The motion of the head (similarity to MEAN_SHAPE on brows, nose and eyes) goes through a Savitzky-Golay
    filter of order 2 over `rigid_window` frames, which keeps position, speed and acceleration. What remains,
    the shape within the head's own frame, is smoothed by a Gaussian over time: `feature_sigma` frames for
    brows, nose and eyes, `jaw_sigma` for the jaw, none for the mouth, whose closures may last a single frame.
    """
    window = min(rigid_window, len(landmarks_px) - (1 - len(landmarks_px) % 2))
    if window < 5:
        return landmarks_px
    points = landmarks_px[..., 0].astype(np.float64) + 1j * landmarks_px[..., 1]
    scale, shift = _rigid_part(points)
    shape = (points - shift[:, None]) / scale[:, None]
    shape[:, BROWS_NOSE_EYES] = _gaussian(shape[:, BROWS_NOSE_EYES], feature_sigma)
    shape[:, JAW] = _gaussian(shape[:, JAW], jaw_sigma)
    smooth_scale = _savgol(scale, window)
    smooth_shift = _savgol(shift, window)
    smoothed = shape * smooth_scale[:, None] + smooth_shift[:, None]
    return np.stack([smoothed.real, smoothed.imag], axis=-1).astype(np.float32)


def _rigid_part(points: NDArray[np.complex128]) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Scale-and-turn [T] and shift [T] of the similarity from MEAN_SHAPE to points [T,68]."""
    mean = (MEAN_SHAPE[..., 0].astype(np.float64) + 1j * MEAN_SHAPE[..., 1])[BROWS_NOSE_EYES]
    mean = mean - mean.mean()
    seen = points[:, BROWS_NOSE_EYES]
    shift = seen.mean(axis=1)
    scale = ((seen - shift[:, None]) * mean.conj()).sum(axis=1) / (np.abs(mean) ** 2).sum()
    return np.where(np.abs(scale) > 1e-6, scale, 1e-6), shift


def _gaussian(values: NDArray[np.complex128], sigma: float) -> NDArray[np.complex128]:
    if sigma <= 0:
        return values
    real, imag = (
        gaussian_filter1d(part, sigma, axis=0, mode="nearest") for part in (values.real, values.imag)
    )
    result: NDArray[np.complex128] = real + 1j * imag
    return result


def _savgol(values: NDArray[np.complex128], window: int) -> NDArray[np.complex128]:
    real, imag = (savgol_filter(part, window, 2, mode="interp") for part in (values.real, values.imag))
    result: NDArray[np.complex128] = real + 1j * imag
    return result
