"""Sharpness of the generated face, without a reference: variance of the Laplacian, and blur at edges.

Both are taken from the face box scaled to 128x128 grey pixels, so that pictures of different size compare.

Laplacian: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy" (2000). It grows with
contrast and noise too.

CPBD: Narvekar and Karam, "A no-reference image blur metric based on the cumulative probability of blur
detection" (2011): the share of edges whose blur goes unnoticed. A vertical edge's width is the distance
between the extrema of its row on both sides; it is noticed with probability 1 - exp(-(width / just
noticeable)^3.6), where 5 px are just noticeable up to a contrast of 50 grey levels in its 64x64 block, and
3 px above. Edges are Sobel's, thinned along the row, above four times the mean energy of the gradient; the
original takes MATLAB's `edge`, so values are like its, not equal to them.

A frame without a face where the reference has one is a miss and scores 0 in all three, the least they can be,
so that losing a face never pays; without a reference every frame should have a face. `sharpness_face_lost` is
the share of such frames.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from syncdiff.evaluate.clip_pair import ClipPair, Faces, faces_or_none, resize
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value, face_lost
from syncdiff.evaluate.metrics.regions import MOUTH_SHARE, region_boxes, whole_boxes
from syncdiff.pipeline.faces.head_pose import sharpness
from syncdiff.pipeline.records import I32, U8, ClipError

FACE_PX = 128
BLOCK_PX = 64
EDGE_BLOCK_SHARE = 0.002  # a block with fewer edge pixels has no say (Narvekar and Karam, section III)
BETA = 3.6
MAX_UNNOTICED = 0.63  # probability of noticing a just noticeable blur
EDGE_ENERGY = 4.0  # MATLAB's `edge(…, 'sobel')` takes this multiple of the mean squared gradient


class Sharpness(Metric):
    name = "sharpness"
    values = (
        Value("sharpness_face", "sharpness (face)", "higher", "", 1),
        Value("sharpness_mouth", "sharpness (mouth)", "higher", "", 1),
        Value("cpbd", "CPBD", "higher"),
        face_lost("sharpness"),
    )
    needs_reference = False
    version = 2

    def measure(self, pair: ClipPair) -> Statistics:
        clip = pair.generated if pair.reference is None else pair.compared[0]
        boxes = face_boxes(faces_or_none(lambda: clip.speaker, clip.num_frames), clip.size_px)
        here = boxes[:, 2] > boxes[:, 0]
        expected = np.ones(len(boxes), np.bool_)
        if pair.reference is not None:
            true = faces_or_none(lambda: pair.reference_faces, pair.num_frames)
            wanted = face_boxes(true, pair.compared[1].size_px)
            expected[:] = False  # nor is a face asked for where the reference has ended
            expected[: len(wanted)] = (wanted[:, 2] > wanted[:, 0])[: len(boxes)]
        if not expected.any() and not here.any():
            raise ClipError(self.name, "no-face", "the face is in no frame")
        rows = [
            measure_face(resize(frame[y0:y1, x0:x1], (FACE_PX, FACE_PX))) if x1 > x0 else (0.0, 0.0, 0.0)
            for (x0, y0, x1, y1), frame, wanted in zip(boxes, clip.frames(), expected, strict=False)
            if wanted or x1 > x0
        ]
        return {"per_frame": np.array(rows), "lost": ~here[expected]}

    def score(self, statistics: Statistics) -> dict[str, float]:
        means = np.nanmean(statistics["per_frame"], axis=0)
        scores = {value.name: float(mean) for value, mean in zip(self.values, means, strict=False)}
        lost = statistics["lost"]
        return {**scores, "sharpness_face_lost": float(np.mean(lost)) * 100 if len(lost) else 0.0}


def face_boxes(faces: Faces, size_px: tuple[int, int]) -> I32:
    """Boxes [T,4] in whole pixels, all zero where there is no face."""
    return whole_boxes(region_boxes(faces, "face"), size_px)


def measure_face(face: U8) -> tuple[float, float, float]:
    """Laplacian variance of the face [128,128,3] and of its mouth, and CPBD (0 where there is no edge)."""
    half = int(FACE_PX * MOUTH_SHARE / 2)
    column, row = FACE_PX // 2, int(0.77 * FACE_PX)  # where the tracker's box has the middle of the mouth
    mouth = face[row - half : row + half, column - half : column + half]
    grey = np.asarray(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), np.uint8)
    return float(sharpness(face[None])[0]), float(sharpness(mouth[None])[0]), cpbd(grey)


def cpbd(grey: U8) -> float:
    """Cumulative probability of blur detection of a picture [H,W], 0 (blurred) to 1; 0 without edges."""
    edges = vertical_edges(grey)
    widths = edge_widths(grey)
    unnoticed = total = 0
    for top in range(0, grey.shape[0] - BLOCK_PX + 1, BLOCK_PX):
        for left in range(0, grey.shape[1] - BLOCK_PX + 1, BLOCK_PX):
            block = (slice(top, top + BLOCK_PX), slice(left, left + BLOCK_PX))
            here = widths[block][edges[block]]
            if len(here) <= EDGE_BLOCK_SHARE * BLOCK_PX**2:
                continue
            noticeable = 5.0 if int(grey[block].max()) - int(grey[block].min()) <= 50 else 3.0
            probability = 1 - np.exp(-((here / noticeable) ** BETA))
            unnoticed += int((probability <= MAX_UNNOTICED).sum())
            total += len(here)
    return unnoticed / total if total else 0.0


def vertical_edges(grey: U8) -> NDArray[np.bool_]:
    """Pixels [H,W] where the horizontal gradient is strong and largest along its row."""
    gradient = np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=3))
    strong = gradient**2 > EDGE_ENERGY * float(np.mean(gradient**2))
    thin = np.zeros(grey.shape, np.bool_)
    thin[:, 1:-1] = (gradient[:, 1:-1] >= gradient[:, :-2]) & (gradient[:, 1:-1] > gradient[:, 2:])
    return np.asarray(strong & thin)


def edge_widths(grey: U8) -> NDArray[np.int64]:
    """For each pixel [H,W] how far its row keeps rising, or falling, through it: its edge's width."""
    rising = _monotone_width(grey)
    falling = _monotone_width(255 - grey)
    gradient = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=3)
    return np.where(gradient >= 0, rising, falling)


def _monotone_width(grey: U8) -> NDArray[np.int64]:
    """Length of the strictly rising run of the row that each pixel lies in."""
    steps = np.diff(grey.astype(np.int16), axis=1) > 0
    columns = np.arange(grey.shape[1])
    stops = np.ones(grey.shape, np.bool_)
    stops[:, 1:] = ~steps
    start = np.maximum.accumulate(np.where(stops, columns, 0), axis=1)
    stops = np.ones(grey.shape, np.bool_)
    stops[:, :-1] = ~steps
    end = np.minimum.accumulate(np.where(stops, columns, grey.shape[1])[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(end - start)
