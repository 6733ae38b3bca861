"""NIQE: how far the statistics of a picture lie from those of natural pictures; needs no reference.

Mittal, Soundararajan and Bovik, "Making a 'Completely Blind' Image Quality Analyzer" (2013), as in their
MATLAB release: grey picture of whole 96x96 blocks, contrast normalised (eq. 1), 18 features of each block
(asymmetric generalised Gaussians of the values and of products of neighbours, eqs. 4 to 8), again at half
the size, and the distance between the Gaussians of such features (eq. 10). That of pristine pictures is the
release's, as BasicSR carries it.

It looks at whole frames at their own size, and at every fifth. The blocks' covariance needs several blocks:
below 192x192 there is no value. Each frame's distance is averaged over the clip. Values equal BasicSR's, save
in pictures with flat areas (coarse JPEG), where rounding decides signs: there by up to a hundredth.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from scipy.special import gamma

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.image.sampled_frames import FRAME_STEP, sampled_grey
from syncdiff.pipeline.records import U8

F64 = NDArray[np.float64]
BLOCK_PX = 96
MIN_SIDE_PX = 2 * BLOCK_PX
AXIS = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
WINDOW = np.outer(AXIS, AXIS) / AXIS.sum() ** 2  # MATLAB's fspecial('gaussian', 7, 7/6)
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # horizontal, vertical, both diagonals (eq. 7)


class Niqe(Metric):
    """mean [36] and covariance [36,36]: of the features of pristine pictures."""

    name = "niqe"
    about = "NIQE of whole frames: distance from the statistics of natural pictures"
    values = (Value("niqe", "NIQE", "lower", "", 2),)
    needs_reference = False
    weights = ("niqe",)

    def __init__(self, mean: F64, covariance: F64) -> None:
        self._mean, self._covariance = mean, covariance

    @classmethod
    def from_file(cls, path: Path) -> Niqe:
        """Of BasicSR's `niqe_pris_params.npz`. Raises KeyError, ValueError for another file."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["mu_pris_param"].reshape(36), file["cov_pris_param"].reshape(36, 36))

    def settings(self) -> dict[str, Any]:
        return {"region": "frame", "frame_step": FRAME_STEP}

    def measure(self, pair: ClipPair) -> Statistics:
        grey = sampled_grey(pair, self.name, MIN_SIDE_PX)
        return {"per_frame": np.array([self.distance(picture) for picture in grey])}

    def score(self, statistics: Statistics) -> dict[str, float]:
        # a picture without any contrast has no features, and no distance
        distances = statistics["per_frame"][np.isfinite(statistics["per_frame"])]
        return {"niqe": float(np.mean(distances)) if len(distances) else float("nan")}

    def distance(self, grey: U8) -> float:
        """Eq. 10 for a picture [H,W]; NaN where fewer than two blocks have features."""
        features = picture_features(grey)
        whole = features[np.isfinite(features).all(axis=1)]
        if len(whole) < 2:
            return float("nan")
        step = self._mean - np.nanmean(features, axis=0)
        inverse = np.linalg.pinv((self._covariance + np.cov(whole, rowvar=False)) / 2)
        return float(np.sqrt(step @ inverse @ step))


def picture_features(grey: U8) -> F64:
    """Features [blocks,36] of a picture [H,W]: 18 at full size, 18 at half."""
    rows, columns = grey.shape[0] // BLOCK_PX, grey.shape[1] // BLOCK_PX
    picture = grey[: rows * BLOCK_PX, : columns * BLOCK_PX].astype(np.float64)
    scales = []
    with np.errstate(divide="ignore", invalid="ignore"):  # blocks without contrast end as NaN
        for side in (BLOCK_PX, BLOCK_PX // 2):
            normal = normalise_contrast(picture)
            blocks = normal.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)
            scales.append([block_features(block) for block in blocks])
            picture = halve(picture)
    return np.concatenate([np.array(features) for features in scales], axis=1)


def normalise_contrast(picture: F64) -> F64:
    """(picture - local mean) / (local deviation + 1), eqs. 1 to 3; borders are repeated."""
    mean = _blur(picture)
    deviation = np.sqrt(np.abs(_blur(picture**2) - mean**2))
    return np.asarray((picture - mean) / (deviation + 1), np.float64)


def block_features(block: F64) -> list[float]:
    """Shape and mean scale of the values, then shape, mean and both scales of four products, [18]."""
    shape, left, right = fit_aggd(block)
    features = [shape, (left + right) / 2]
    for shift in NEIGHBOURS:
        shape, left, right = fit_aggd(block * np.roll(block, shift, axis=(0, 1)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)  # eq. 8
        features += [shape, float(mean), left, right]
    return features


def fit_aggd(values: F64) -> tuple[float, float, float]:
    """Shape, left and right scale of an asymmetric generalised Gaussian, by moments.

    Lasmar, Stitou and Berthoumieu, "Multiscale skewed heavy tailed model for texture analysis" (2009). Where
    there is no value on one side the scales are NaN and the shape is the least, as in the release.
    """
    left = np.sqrt(_mean_square(values[values < 0]))
    right = np.sqrt(_mean_square(values[values > 0]))
    ratio = left / right
    flatness = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    wanted = flatness * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, flatnesses = _aggd_table()
    shape = float(shapes[np.argmin((flatnesses - wanted) ** 2)])  # argmin of all NaN is 0
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, float(left * scale), float(right * scale)


@lru_cache(maxsize=1)
def _aggd_table() -> tuple[F64, F64]:
    """Shapes 0.2 to 10 in steps of 0.001, and E|x|² / E x² for each."""
    shapes = np.arange(0.2, 10.001, 0.001)
    return shapes, gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))


def halve(picture: F64) -> F64:
    """Half the size [H/2,W/2] as MATLAB's imresize: bicubic (a = -0.5), widened against aliasing."""
    distance = np.abs(np.arange(-3.5, 4)) / 2
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    taps = np.where(distance <= 1, near, far)
    taps /= taps.sum()
    for _ in range(2):  # rows, then columns
        padded = np.pad(picture, ((3, 4), (0, 0)), mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 8, axis=0)[::2]
        picture = (windows @ taps).T
    return picture


def _blur(picture: F64) -> F64:
    # Not one axis after the other: where a picture is flat the rounding decides about signs, and these count.
    return np.asarray(scipy.ndimage.convolve(picture, WINDOW, mode="nearest"), np.float64)


def _mean_square(values: F64) -> float:
    return float(np.mean(values**2)) if len(values) else float("nan")
