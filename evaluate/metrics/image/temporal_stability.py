"""Does the picture flicker where the reference does not? Differences of neighbouring frames against its.

With dG and dR the changes from one frame to the next of generated and reference picture (grey levels):

    flicker    root mean square of dG - dR: change that the reference doesn't have, or lacks; 0 is best
    motion     10 log10(mean dG² / mean dR²): 0 as lively as the reference, below 0 frozen, above 0 jittering

The mouth is the region `mouth`; the static region is the picture outside the face box, where a lip-sync model
should change nothing. Means are over all pixels of a region and frames of a clip.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.regions import region_boxes, whole_boxes
from syncdiff.pipeline.records import I32, U8, ClipError

MIN_STATIC_SHARE = 0.05  # of the picture, for the static region to have a say
MIN_ENERGY = 1e-3  # below this, in squared grey levels, motion is taken for none


class Stability(Metric):
    name = "stability"
    values = (
        Value("flicker_mouth", "flicker (mouth)", "lower", "grey levels", 2),
        Value("flicker_static", "flicker (static)", "lower", "grey levels", 2),
        Value("motion_mouth", "motion (mouth)", "zero", "dB", 2),
    )

    def measure(self, pair: ClipPair) -> Statistics:
        faces, size = pair.reference_faces, pair.target.size_px
        mouths = whole_boxes(region_boxes(faces, "mouth"), size)
        outside = ~_inside(whole_boxes(region_boxes(faces, "face"), size), size)
        mouth, static = _Energies(), _Energies()
        greys = ((_grey(generated), _grey(reference)) for generated, reference in pair.frames())
        for (x0, y0, x1, y1), (before, after) in zip(mouths[1:], pairwise(greys), strict=False):
            generated, reference = after[0] - before[0], after[1] - before[1]
            if x1 > x0:
                mouth.add(generated[y0:y1, x0:x1], reference[y0:y1, x0:x1])
            static.add(generated[outside], reference[outside])
        if not mouth.pixels:
            raise ClipError(self.name, "no-face", "in no two frames does the reference have a face")
        if outside.mean() < MIN_STATIC_SHARE:
            raise ClipError(self.name, "no-static-region", "the face fills the picture")
        return {"mouth": mouth.sums(), "static": static.sums()}

    def score(self, statistics: Statistics) -> dict[str, float]:
        excess, generated, reference = statistics["mouth"][:3] / statistics["mouth"][3]
        static = statistics["static"][0] / statistics["static"][3]
        return {
            "flicker_mouth": float(np.sqrt(excess)),
            "flicker_static": float(np.sqrt(static)),
            "motion_mouth": 10 * float(np.log10(max(generated, MIN_ENERGY) / max(reference, MIN_ENERGY))),
        }


class _Energies:
    """Sums of (dG - dR)², dG², dR², and the number of pixels."""

    def __init__(self) -> None:
        self._sums = np.zeros(3)
        self.pixels = 0

    def add(self, generated: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
        excess = generated - reference
        self._sums += [np.vdot(values, values) for values in (excess, generated, reference)]
        self.pixels += generated.size

    def sums(self) -> NDArray[np.float64]:
        return np.array([*self._sums, self.pixels])


def _grey(frame: U8) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.float32)


def _inside(boxes: I32, size_px: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels [H,W] that are in the box of any frame."""
    covered = np.zeros((size_px[1], size_px[0]), np.bool_)
    for x0, y0, x1, y1 in np.unique(boxes, axis=0):
        covered[y0:y1, x0:x1] = True
    return covered
