"""Landmarks of one track made continuous: gaps filled, jitter removed, the mouth neither late nor damped.

Why not a Savitzky-Golay filter of order 2: no single window does what `smooth_landmarks` does at once. In
percent of the distance between the eyes, for dlib's landmarks of nine real clips of up to 100 frames: jitter
(second differences in time over the root of 6) of points 17 to 47; and how far points 0 to 47 are off when a
head nods by a third of that distance within five frames, with the clips' own noise in random order.

                                          raw  here, 9   SG 5   SG 7   SG 9
    jitter, three clips with still heads  0.51    0.07   0.21   0.13   0.10
    jitter, six clips with moving heads   1.01    0.66   0.43   0.29   0.22
    error around a nod                    1.25    1.00   0.95   1.09   1.50
    largest error of a nod without noise          0.1    0.8    2.3    3.7

Moving heads keep more of their jitter here than with long windows, which damp motion instead. Smoothing the
mouth too would cost more: SG 9 lifts the lips at their closures by a quarter of the opening's deviation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import savgol_coeffs, savgol_filter

from syncdiff.pipeline.faces.backend import MEAN_SHAPE
from syncdiff.pipeline.records import F32, Bool

_BROWS_NOSE_EYES = slice(17, 48)
# Parts of the face that are smoothed, each with the noise of its points: standard deviation of a coordinate,
# in distances between the eyes, within the head's own frame. Upper ends of what dlib's predictor showed on
# eight clips with still heads, from second differences in time; so are the noises of the head's motion below.
_PARTS = ((slice(0, 17), 0.009), (slice(17, 27), 0.006), (slice(27, 36), 0.006), (slice(36, 48), 0.006))
_SHIFT_NOISE = 0.003
_SCALE_NOISE = 0.003
_ORDER = 2


def fill_gaps(values: F32, detected: Bool) -> F32:
    """`values` [T,...] with the rows that are not `detected` [T] interpolated in a straight line."""
    if detected.all():
        return values
    frames = np.arange(len(values))
    flat = values.reshape(len(values), -1)
    filled = np.stack([np.interp(frames, frames[detected], column[detected]) for column in flat.T], axis=1)
    return filled.reshape(values.shape).astype(np.float32)


def smooth_landmarks(landmarks_px: F32, window: int) -> F32:
    """Landmarks [T,68,2] with less jitter and no lag: every filter is symmetric in time.

    The head's motion (similarity to MEAN_SHAPE on brows, nose and eyes) and the shape within the head's own
    frame are smoothed apart, and each only as far as its changes do not exceed the predictor's noise (see
    `wiener`): still heads come to rest, moving heads are followed. The mouth (points 48 to 67) is left as it
    is, since its closures may last a single frame. `window`: frames that are taken together, odd; below 5
    nothing is smoothed.
    """
    window = min(window, len(landmarks_px) - 1 + len(landmarks_px) % 2)
    if window < _ORDER + 3:
        return landmarks_px
    points = landmarks_px[..., 0] + 1j * landmarks_px[..., 1].astype(np.float64)
    scale, shift = _head_motion(points)
    shape = (points - shift[:, None]) / scale[:, None]
    eyes = float(np.abs(shape[:, 42:48].mean(axis=1) - shape[:, 36:42].mean(axis=1)).mean())
    eyes_px, size = eyes * float(np.abs(scale).mean()), float(np.abs(scale).mean())
    for part, noise in _PARTS:
        shape[:, part] = wiener(shape[:, part], noise * eyes, window, order=0)
    scale = wiener(scale[:, None], _SCALE_NOISE * size, window, _ORDER)
    shift = wiener(shift[:, None], _SHIFT_NOISE * eyes_px, window, _ORDER)
    smoothed = shape * scale + shift
    result = np.stack([smoothed.real, smoothed.imag], axis=-1).astype(np.float32)
    result[:, 48:] = landmarks_px[:, 48:]
    return result


def wiener(values: NDArray[np.complex128], noise: float, window: int, order: int) -> NDArray[np.complex128]:
    """Adaptive smoothing in time of values [T,k] (complex, x + iy) with noise of deviation `noise` in each.

    The local mean (Savitzky-Golay of this order over `window` frames; order 0: a Gaussian of that extent)
    plus the share of the deviation from it that noise does not explain: 1 - expected / observed energy, as in
    the adaptive Wiener filter of Lee (1980), with the observed energy averaged over the k values and a few
    frames.
    """
    sigma = window / 4.5
    if order:
        mean = _real_and_imaginary(lambda x: savgol_filter(x, window, order, axis=0, mode="interp"), values)
        kernel = savgol_coeffs(window, order)
    else:
        mean = _real_and_imaginary(lambda x: gaussian_filter1d(x, sigma, axis=0, mode="nearest"), values)
        kernel = gaussian_filter1d(np.eye(1, 8 * window + 1, 4 * window)[0], sigma)
    deviation = values - mean
    # white noise of variance 1 leaves this much after its local mean has been taken off
    left = 1 - 2 * kernel[len(kernel) // 2] + np.square(kernel).sum()
    expected = 2 * left * noise**2
    observed = gaussian_filter1d(np.square(np.abs(deviation)).mean(axis=1), 2.0, mode="nearest")
    share = np.clip(1 - expected / np.maximum(observed, 1e-30), 0, 1)
    return np.asarray(mean + share[:, None] * deviation)


def _head_motion(points: NDArray[np.complex128]) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Scale-and-turn [T] and shift [T] of the similarity from MEAN_SHAPE to points [T,68]."""
    mean = MEAN_SHAPE[_BROWS_NOSE_EYES] @ np.array([1, 1j])
    mean = mean - mean.mean()
    seen = points[:, _BROWS_NOSE_EYES]
    shift = seen.mean(axis=1)
    scale = (seen - shift[:, None]) @ mean.conj() / np.vdot(mean, mean).real
    return np.where(np.abs(scale) > 1e-6, scale, 1e-6), shift


def _real_and_imaginary(
    smooth: Callable[[NDArray[np.float64]], NDArray[np.float64]], values: NDArray[np.complex128]
) -> NDArray[np.complex128]:
    return np.asarray(smooth(values.real) + 1j * smooth(values.imag))
