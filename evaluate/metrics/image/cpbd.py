"""CPBD as published: the share of edges whose blur goes unnoticed, over whole frames; needs no reference.

Narvekar and Karam, "A no-reference image blur metric based on the cumulative probability of blur detection
(CPBD)" (2011), in the steps of the Python package cpbd 1.0.7 (a port of the authors' MATLAB program): blocks
of 64x64 with more than 0.2 % edge pixels (Canny) have a say; in them edges are Sobel's, thinned; the width of
an edge is that of Marziliano et al. 2002, how far its row keeps falling to one side and rising to the other;
blur is noticed with probability 1 - exp(-(width / just noticeable)^3.6), where 5 px are just noticeable up to
a contrast of 50 grey levels in the block, and 3 px above.

Every fifth frame, at its own size. `sharpness` has a CPBD-like value of the face at a fixed size, which
compares between clips of different size; this one is for tables that hold the original's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from skimage.feature import canny

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.image.sampled_frames import FRAME_STEP, sampled_grey
from syncdiff.pipeline.records import U8, Bool

F64 = NDArray[np.float64]
BLOCK_PX = 64
EDGE_BLOCK_SHARE = 0.002
BETA = 3.6
UNNOTICED_PERCENT = 63  # the probability of noticing a just noticeable blur, as the histogram's last bin
LONGEST_PX = 101  # beyond it the width of an edge is not followed
HORIZONTAL = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]]) / 8.0


class Cpbd(Metric):
    name = "cpbd_original"
    about = "CPBD as published, of whole frames: share of edges whose blur goes unnoticed"
    values = (Value("cpbd_original", "CPBD (original)", "higher"),)
    needs_reference = False

    def settings(self) -> dict[str, Any]:
        return {"region": "frame", "frame_step": FRAME_STEP}

    def measure(self, pair: ClipPair) -> Statistics:
        grey = sampled_grey(pair, self.name, BLOCK_PX)
        return {"per_frame": np.array([cpbd(picture) for picture in grey])}

    def score(self, statistics: Statistics) -> dict[str, float]:
        return {"cpbd_original": float(np.mean(statistics["per_frame"]))}


def cpbd(grey: U8) -> float:
    """Of a picture [H,W], 0 (blurred) to 1; 0 without edges."""
    picture = grey.astype(np.float64)
    # scikit-image's own thresholds for floats
    has_edges = canny(picture, low_threshold=0.1, high_threshold=0.2)
    widths = edge_widths(picture)
    unnoticed = total = 0
    for top in range(0, grey.shape[0] - BLOCK_PX + 1, BLOCK_PX):
        for left in range(0, grey.shape[1] - BLOCK_PX + 1, BLOCK_PX):
            block = (slice(top, top + BLOCK_PX), slice(left, left + BLOCK_PX))
            if np.count_nonzero(has_edges[block]) <= EDGE_BLOCK_SHARE * BLOCK_PX**2:
                continue
            here = widths[block][widths[block] > 0]
            contrast = int(grey[block].max()) - int(grey[block].min())
            noticed = 1 - np.exp(-((here / (5.0 if contrast <= 50 else 3.0)) ** BETA))
            unnoticed += int((np.rint(100 * noticed) <= UNNOTICED_PERCENT).sum())
            total += len(here)
    return unnoticed / total if total else 0.0


def edge_widths(picture: F64) -> NDArray[np.int64]:
    """Width in pixels of the edge at each pixel [H,W]; 0 where there is none that runs up and down.

    Of the edges only those count whose gradient is nearer to the row's direction than to a diagonal.
    """
    rows, columns = np.gradient(picture)
    angles = np.degrees(np.arctan2(rows, columns))
    angles[columns == 0] = 0  # so the program has it, also where the picture changes downwards only
    turns = np.rint(angles / 45)
    edges = thin_edges(picture)
    edges[[0, -1]] = edges[:, [0, -1]] = False
    if not np.any(angles):
        edges[:] = False  # and so: no edges where the gradient has one direction everywhere
    rising, falling = (_width(picture * sign) for sign in (1.0, -1.0))
    widths = np.where(turns == 0, rising, falling)
    return np.where(edges & ((turns == 0) | (np.abs(turns) == 4)), widths, 0)


def thin_edges(picture: F64) -> Bool:
    """Where Sobel's horizontal response is strong and larger than at both neighbours, across or down."""
    strength = scipy.ndimage.convolve(picture, HORIZONTAL) ** 2
    strength[strength <= 2 * np.sqrt(strength.mean())] = 0
    padded = np.pad(strength, 1)
    across = (strength > padded[1:-1, :-2]) & (strength > padded[1:-1, 2:])
    down = (strength > padded[:-2, 1:-1]) & (strength > padded[2:, 1:-1])
    return np.asarray(across | down)


def _width(picture: F64) -> NDArray[np.int64]:
    """How far the row keeps falling to the left and rising to the right of each pixel's neighbours, [H,W]."""
    steps = np.diff(picture, axis=1) > 0
    left = _run_length(steps[:, ::-1])[:, ::-1]  # rising steps that end at column c, at index c - 1
    right = _run_length(steps)  # rising steps that begin at column c, at index c
    width = np.zeros(picture.shape, np.int64)
    width[:, 2:] += np.minimum(left[:, :-1], LONGEST_PX - 1)
    width[:, :-2] += np.minimum(right[:, 1:], LONGEST_PX - 1)
    return width + 2


def _run_length(true: Bool) -> NDArray[np.int64]:
    """How many in a row are True from each place of a row on, [H,n]."""
    columns = np.arange(true.shape[1])
    stops = np.where(true, true.shape[1], columns)
    return np.asarray(np.minimum.accumulate(stops[:, ::-1], axis=1)[:, ::-1] - columns)
