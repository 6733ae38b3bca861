"""PSNR and SSIM against the reference, on the full frame, the face and the mouth, and as TalkLip counts them.

PSNR: 10 log10(255² / MSE) over all channels of a frame. SSIM: Wang et al., "Image quality assessment: from
error visibility to structural similarity" (2004), with its 11x11 Gaussian window of sigma 1.5, population
covariance and K = 0.01, 0.03, on R, G and B, averaged; equal to scikit-image's `structural_similarity` with
`gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255`. Both are means over frames,
then over clips.

TalkLip (Sxjdwang/TalkLip, evaluation/visual_quality.py) cuts both videos with the reference's face box of the
frame, scales to 96x96, and averages over the frames of all clips together. Its PSNR subtracts and squares
unsigned bytes, which wraps around at 256 and flatters: `psnr_talklip_uint8` repeats that, for comparison with
figures that were made so. (Its boxes came from S3FD; here they are the tracker's.)
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.regions import Region, crops
from syncdiff.pipeline.records import U8, ClipError

MAX_PSNR_DB = 100.0  # of equal pictures, as in TalkLip's program; their true value is infinite
TALKLIP_SIZE_PX = 96
SSIM_RADIUS_PX = 5  # int(truncate * sigma + 0.5) with scikit-image's truncate of 3.5
SSIM_SIGMA_PX = 1.5
SSIM_C1 = (0.01 * 255) ** 2
SSIM_C2 = (0.03 * 255) ** 2
SSIM_BAND_ROWS = 32  # rows at a time, so that intermediate images stay in a core's cache


class FrameMetric(Metric):
    """A number for each frame of a region; a clip's value is their mean."""

    region: ClassVar[Region] = "frame"

    def settings(self) -> dict[str, Any]:
        return {"region": self.region}

    @abstractmethod
    def compare(self, generated: U8, reference: U8) -> float:
        """The number of one frame."""

    def measure(self, pair: ClipPair) -> Statistics:
        values = [self.compare(generated, reference) for generated, reference in crops(pair, self.region)]
        if not values:
            raise ClipError(self.name, "no-frames", "there is no frame to compare")
        return {"per_frame": np.array(values)}

    def score(self, statistics: Statistics) -> dict[str, float]:
        return {self.name: float(np.mean(statistics["per_frame"]))}


class Psnr(FrameMetric):
    name = "psnr"
    values = (Value("psnr", "PSNR", "higher", "dB", 2),)

    def compare(self, generated: U8, reference: U8) -> float:
        return psnr_db(generated, reference)


class PsnrFace(Psnr):
    name = "psnr_face"
    values = (Value("psnr_face", "PSNR (face)", "higher", "dB", 2),)
    region = "face"


class PsnrMouth(Psnr):
    name = "psnr_mouth"
    values = (Value("psnr_mouth", "PSNR (mouth)", "higher", "dB", 2),)
    region = "mouth"


class Ssim(FrameMetric):
    name = "ssim"
    values = (Value("ssim", "SSIM", "higher"),)

    def compare(self, generated: U8, reference: U8) -> float:
        return ssim(generated, reference)


class SsimFace(Ssim):
    name = "ssim_face"
    values = (Value("ssim_face", "SSIM (face)", "higher"),)
    region = "face"


class SsimMouth(Ssim):
    name = "ssim_mouth"
    values = (Value("ssim_mouth", "SSIM (mouth)", "higher"),)
    region = "mouth"


class TalkLip(Metric):
    """PSNR and SSIM as TalkLip's program has them, and its PSNR without the wrap-around."""

    name = "talklip"
    values = (
        Value("psnr_talklip", "PSNR (TalkLip crop)", "higher", "dB", 2),
        Value("ssim_talklip", "SSIM (TalkLip crop)", "higher"),
        Value("psnr_talklip_uint8", "PSNR (TalkLip, uint8 wrap-around)", "none", "dB", 2),
    )

    def settings(self) -> dict[str, Any]:
        return {"region": "face", "size_px": TALKLIP_SIZE_PX, "pooling": "frames"}

    def measure(self, pair: ClipPair) -> Statistics:
        rows = []
        for cut_generated, cut_reference in crops(pair, "face"):
            cuts = [_talklip_size(cut) for cut in (cut_generated, cut_reference)]
            rows.append((psnr_db(*cuts), ssim(*cuts), psnr_db_uint8(*cuts)))
        if not rows:
            raise ClipError(self.name, "no-frames", "there is no frame to compare")
        return {"per_frame": np.array(rows)}

    def score(self, statistics: Statistics) -> dict[str, float]:
        means = np.mean(statistics["per_frame"], axis=0)
        return {value.name: float(mean) for value, mean in zip(self.values, means, strict=True)}

    def pool(self, clips: Iterable[Statistics]) -> dict[str, float]:
        """The mean over the frames of all clips: long clips weigh more."""
        return self.score({"per_frame": np.concatenate([clip["per_frame"] for clip in clips])})


def psnr_db(a: U8, b: U8) -> float:
    """Peak signal-to-noise ratio of two pictures of one shape, at most 100 dB."""
    return _db(float(cv2.norm(a, b, cv2.NORM_L2SQR)) / a.size)


def psnr_db_uint8(a: U8, b: U8) -> float:
    """PSNR from differences and squares modulo 256, in which 16 and 240 apart count as equal."""
    difference = a - b
    return _db(float(np.mean(difference * difference)))


def ssim(a: U8, b: U8) -> float:
    """Structural similarity of two pictures [H,W,3], -1 to 1.

    Raises ClipError("ssim", "region-too-small") below 11x11 pixels.
    """
    height, width = a.shape[:2]
    rim = 2 * SSIM_RADIUS_PX
    if min(height, width) <= rim:
        raise ClipError("ssim", "region-too-small", f"{width}x{height} is smaller than the 11x11 window")
    total = 0.0
    for top in range(0, height - rim, SSIM_BAND_ROWS):
        rows = slice(top, top + SSIM_BAND_ROWS + rim)
        total += float(_ssim_map(a[rows].astype(np.float64), b[rows].astype(np.float64)).sum())
    return float(total / ((height - rim) * (width - rim) * a.shape[2]))


def _ssim_map(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wang's equation 13 at each pixel whose window lies in the picture."""
    mean_a, mean_b = _window(a), _window(b)
    product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance = _window(a * b) - product
    variances = _window(a * a + b * b) - squares
    return ((2 * product + SSIM_C1) * (2 * covariance + SSIM_C2)) / (
        (squares + SSIM_C1) * (variances + SSIM_C2)
    )


def _window(values: NDArray[np.float64]) -> NDArray[np.float64]:
    offsets = np.arange(-SSIM_RADIUS_PX, SSIM_RADIUS_PX + 1)
    weights = np.exp(-0.5 * (offsets / SSIM_SIGMA_PX) ** 2)
    weights /= weights.sum()
    inner = slice(SSIM_RADIUS_PX, -SSIM_RADIUS_PX)
    return np.asarray(cv2.sepFilter2D(values, -1, weights, weights)[inner, inner], np.float64)


def _db(mse: float) -> float:
    return min(MAX_PSNR_DB, 10 * math.log10(255**2 / mse)) if mse > 0 else MAX_PSNR_DB


def _talklip_size(picture: U8) -> U8:
    return np.asarray(cv2.resize(picture, (TALKLIP_SIZE_PX, TALKLIP_SIZE_PX)), np.uint8)
