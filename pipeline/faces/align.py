"""Stable square face crops and AV-HuBERT's mouth regions, cut by similarities fitted to eye and nose points.

A matrix here is [2,3] float32 and takes source pixels to crop pixels: crop = M[:, :2] @ source + M[:, 2].
Points and pixels follow OpenCV: the centre of the first pixel is (0, 0).
"""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass
from scipy.ndimage import correlate1d

from syncdiff.pipeline.config import STRICT
from syncdiff.pipeline.records import F32, U8, Bool, ClipError, check_array

# AV-HuBERT's five stable points (nose base and eye corners, iBUG numbering from 0) and where its mean face of
# 256x256 pixels has them: `20words_mean_face.npy`, used by av_hubert/avhubert/preparation/align_mouth.py.
STABLE_POINTS = (33, 36, 39, 42, 45)
MEAN_FACE_PX = (
    (128.870, 137.303), (92.522, 94.369), (112.772, 94.944), (145.525, 94.535), (166.677, 93.566)
)  # fmt: skip

# The face crop is the square of that mean face around (129, 136) with sides of 208: the base of the nose
# comes to its middle, the eye centres lie 0.26 of a side apart at 0.30 of its height, the chin of a closed
# mouth at about 0.80 and of a wide open one at 0.94, and above the eyes 0.30 of a side is left for the
# forehead.
TEMPLATE_CENTRE_PX = (129.0, 136.0)
TEMPLATE_SIDE_PX = 208.0

# align_mouth.py: 96x96 cut out of the 256x256 mean face, landmarks averaged over 12 frames.
MOUTH_SIZE_PX = 96
MOUTH_CANVAS_PX = 256
MOUTH_WINDOW_FRAMES = 12


@dataclass(frozen=True, config=STRICT)
class AlignConfig:
    """smooth_frames: standard deviation in frames of the zero-phase smoothing of the points (0: none)."""

    smooth_frames: Annotated[float, Field(ge=0, le=25)] = 1.0


def smooth_over_time(values: NDArray[np.floating], sigma_frames: float) -> NDArray[np.float64]:
    """Local linear regression over time with Gaussian weights, [T,...] to [T,...] float64.

    Away from the ends this is a Gaussian filter; at the ends, unlike one, it neither lags behind a steady
    motion nor leaves the noise of the first and last frame (Fan and Gijbels 1996, "Local Polynomial
    Modelling", eq. 3.2).
    """
    frames = len(values)
    flat = np.asarray(values, np.float64).reshape(frames, -1)
    if sigma_frames > 0 and frames > 2:
        radius = min(frames - 1, int(np.ceil(4 * sigma_frames)))
        offset = np.arange(-radius, radius + 1, dtype=np.float64)
        weight = np.exp(-0.5 * (offset / sigma_frames) ** 2)
        inside = np.ones((frames, 1))
        s0, s1, s2 = (_sum_over_time(inside, weight * offset**power) for power in range(3))
        m0, m1 = (_sum_over_time(flat, weight * offset**power) for power in range(2))
        flat = (s2 * m0 - s1 * m1) / (s0 * s2 - s1**2)
    return flat.reshape(np.shape(values))


def _sum_over_time(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(correlate1d(values, weights, axis=0, mode="constant"))


def fit_similarities(source: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """Least-squares similarities (no reflection) from source [T,P,2] to target [P,2]: [T,2,3].

    Umeyama 1991 in two dimensions, where the optimum has a closed form over the complex numbers. Raises
    ClipError `degenerate-landmarks` where the points of a frame are not finite or fall into one.
    """
    src = source[..., 0] + 1j * source[..., 1]
    dst = target[..., 0] + 1j * target[..., 1]
    src_mean, dst_mean = src.mean(axis=1, keepdims=True), dst.mean()
    src, dst = src - src_mean, dst - dst_mean
    spread = (np.abs(src) ** 2).sum(axis=1)
    bad = ~(spread > 1e-6)
    if bad.any():
        detail = f"no face shape to align in {int(bad.sum())} of {len(bad)} frames, first {int(bad.argmax())}"
        raise ClipError("align", "degenerate-landmarks", detail)
    turn = (src.conj() * dst).sum(axis=1) / spread
    shift = dst_mean - turn * src_mean[:, 0]
    rows = np.stack([turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag], axis=1)
    return np.asarray(rows.reshape(-1, 2, 3), np.float64)


def template_px(face_size_px: int) -> NDArray[np.float64]:
    """Where the five stable points lie in a crop of this size: [5,2]."""
    units = (np.array(MEAN_FACE_PX) - TEMPLATE_CENTRE_PX) / TEMPLATE_SIDE_PX + 0.5
    return units * face_size_px - 0.5


def crop_matrices(landmarks_px: F32, face_size_px: int, config: AlignConfig | None = None) -> F32:
    """Similarities from source pixels to the face crop for landmarks [T,68,2]: [T,2,3].

    Only eye corners and the base of the nose take part, so a moving mouth does not move the crop. Raises
    ClipError `degenerate-landmarks`.
    """
    check_array("landmarks_px", landmarks_px, np.float32, (None, 68, 2))
    config = config or AlignConfig()
    points = smooth_over_time(landmarks_px[:, STABLE_POINTS], config.smooth_frames)
    return fit_similarities(points, template_px(face_size_px)).astype(np.float32)


def to_crop(points: NDArray[np.floating], matrix: F32) -> F32:
    """Points [...,P,2] in source pixels to crop pixels, by one matrix [2,3] or one for each frame [T,2,3]."""
    exact = matrix.astype(np.float64)
    moved = points @ np.swapaxes(exact[..., :2], -1, -2) + exact[..., None, :, 2]
    return np.asarray(moved, np.float32)


def crop_faces(frames: U8, matrices: F32, face_size_px: int) -> U8:
    """Face crops [T,N,N,3] of frames [T,H,W,3]; outside the picture its border is repeated.

    A face larger than the crop is low-passed first, so that fine detail does not alias.
    """
    check_array("frames", frames, np.uint8, (len(matrices), None, None, 3))
    size = (face_size_px, face_size_px)
    faces = np.empty((len(frames), *size, 3), np.uint8)
    for frame, matrix, face in zip(frames, matrices.astype(np.float64), faces, strict=True):
        face[...] = _warp(frame, matrix, size, cv2.BORDER_REPLICATE)
    return faces


def _warp(image: U8, matrix: NDArray[np.float64], size: tuple[int, int], border: int) -> U8:
    """`image` under the affine `matrix` at `size` (width, height): bilinear, low-passed where it shrinks."""
    if _scale(matrix) < 0.95:
        image, matrix = _reduce(image, matrix, size)
    return np.asarray(cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border))


def _scale(matrix: NDArray[np.float64]) -> float:
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def _reduce(image: U8, matrix: NDArray[np.float64], size: tuple[int, int]) -> tuple[U8, NDArray[np.float64]]:
    """The part of `image` that a shrinking warp reads, low-passed and halved as needed, and the rest of it.

    Halving averages 2x2 pixels; between two halvings a 3x3 kernel takes over little by little, so that a
    face of changing size does not change its sharpness from one frame to the next.
    """
    scale = _scale(matrix)
    x0, y0, x1, y1 = _source_box(matrix, size, image.shape, margin=2 + int(2 / scale))
    part, linear, shift = image[y0:y1, x0:x1], matrix[:, :2], matrix[:, :2] @ (x0, y0) + matrix[:, 2]
    while scale <= 0.5 and min(part.shape[:2]) > 1:
        height, width = part.shape[0] // 2, part.shape[1] // 2
        part = np.asarray(
            cv2.resize(part[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        )
        shift = shift + linear @ (0.5, 0.5)  # pixel centres: large = 2 * small + 0.5
        linear, scale = 2 * linear, 2 * scale
    # The kernel (side, 1 - 2 side, side) grows from nothing to (1 2 1)/4 just before a halving.
    side = float(np.clip((1 - scale) / 2, 1e-6, 0.25))
    sigma = np.sqrt(-0.5 / np.log(side / (1 - 2 * side)))
    part = np.asarray(cv2.GaussianBlur(part, (3, 3), sigma, borderType=cv2.BORDER_REPLICATE))
    return part, np.column_stack([linear, shift])


def _source_box(
    matrix: NDArray[np.float64], size: tuple[int, int], shape: tuple[int, ...], margin: int
) -> tuple[int, int, int, int]:
    """Box (x0, y0, x1, y1) of whole pixels of a picture with what a crop of `size` shows, and a margin."""
    width, height = size[0] - 0.5, size[1] - 0.5
    corners = np.array([(-0.5, -0.5), (width, -0.5), (-0.5, height), (width, height)])
    back = np.linalg.solve(matrix[:, :2], (corners - matrix[:, 2]).T)
    low, high = np.floor(back.min(axis=1)) - margin, np.ceil(back.max(axis=1)) + margin + 1
    x0, y0 = (int(np.clip(low[axis], 0, shape[1 - axis] - 1)) for axis in (0, 1))
    return x0, y0, int(np.clip(high[0], x0 + 1, shape[1])), int(np.clip(high[1], y0 + 1, shape[0]))


def paste_back(frame: U8, face: U8, matrix: F32, mask: Bool, feather: float = 0.04) -> U8:
    """A copy of `frame` [H,W,3] with `face` [N,N,3] in place where `mask` [N,N] is set.

    The face fades in from the mask's edge inwards over `feather` of the crop's side. Every pixel of the frame
    whose centre falls outside the mask keeps its exact value.
    """
    size, marked = face.shape[0], mask.view(np.uint8)
    left, top, width, height = cv2.boundingRect(marked)
    result: U8 = frame.copy()
    if width == 0:
        return result
    # Only the rows and columns of the mask, with an unmarked rim, so that the crop's edge is an edge too.
    marked = np.pad(marked[top : top + height, left : left + width], 1)
    face = np.asarray(face[max(top - 1, 0) : top + height + 1, max(left - 1, 0) : left + width + 1])
    onto = matrix.astype(np.float64)
    onto[:, 2] -= (left - 1, top - 1)
    x0, y0, x1, y1 = _source_box(onto, (width + 2, height + 2), frame.shape, margin=1)
    box = (x1 - x0, y1 - y0)
    inverse = np.linalg.inv(onto[:, :2])
    back = np.column_stack([inverse, -inverse @ onto[:, 2] - (x0, y0)])
    depth = cv2.distanceTransform(marked, cv2.DIST_L2, 3)
    fade = np.clip((depth - 1) * (255 / max(1.0, feather * size)), 0, 255).astype(np.uint8)
    weight = _warp(fade, back, box, cv2.BORDER_CONSTANT).astype(np.float32) / 255
    weight *= cv2.warpAffine(marked, back, box, flags=cv2.INTER_NEAREST)
    back_of_face = back.copy()
    back_of_face[:, 2] += back[:, :2] @ (float(left == 0), float(top == 0))
    pasted = _warp(face, back_of_face, box, cv2.BORDER_REPLICATE)
    result[y0:y1, x0:x1] = cv2.blendLinear(result[y0:y1, x0:x1], pasted, 1 - weight, weight)
    return result


def mouth_matrices(landmarks_px: F32) -> F32:
    """Similarities from source pixels to AV-HuBERT's 96x96 mouth region: [T,68,2] to [T,2,3].

    The convention of align_mouth.py to the letter: the points of a frame are averaged with those of the 11
    frames after it, the last 11 frames keep the last similarity (of a clip shorter than 12, all frames the
    same one); the region's centre is the mean of the frame's own points 48-67, held inside the 256x256
    canvas and rounded half to even. Raises ClipError `degenerate-landmarks`.
    """
    check_array("landmarks_px", landmarks_px, np.float32, (None, 68, 2))
    frames = len(landmarks_px)
    window = min(frames, MOUTH_WINDOW_FRAMES)
    stable = landmarks_px[:, STABLE_POINTS].astype(np.float64)
    total = np.cumsum(np.concatenate([np.zeros_like(stable[:1]), stable]), axis=0)
    means = (total[window:] - total[:-window]) / window
    matrices = fit_similarities(means, np.array(MEAN_FACE_PX))
    matrices = matrices[np.minimum(np.arange(frames), frames - window)]
    mouth = landmarks_px[:, 48:68].astype(np.float64).mean(axis=1)
    centre = np.einsum("tij,tj->ti", matrices[..., :2], mouth) + matrices[..., 2]
    half = MOUTH_SIZE_PX // 2
    matrices[..., 2] -= np.rint(np.clip(centre, half, MOUTH_CANVAS_PX - half)) - half
    return matrices.astype(np.float32)


def crop_mouths(frames: U8, matrices: F32) -> U8:
    """Grey mouth regions [T,96,96] of frames [T,H,W,3], black outside the picture.

    As in align_mouth.py: bilinear, no averaging where it shrinks, cut to whole numbers before the conversion
    to grey. That program then stores H.264, whose loss is not repeated here.
    """
    check_array("frames", frames, np.uint8, (len(matrices), None, None, 3))
    size = (MOUTH_SIZE_PX, MOUTH_SIZE_PX)
    mouths = np.empty((len(frames), *size), np.uint8)
    for frame, matrix, mouth in zip(frames, matrices.astype(np.float64), mouths, strict=True):
        x0, y0, x1, y1 = _source_box(matrix, size, frame.shape, margin=2)
        shifted = np.column_stack([matrix[:, :2], matrix[:, :2] @ (x0, y0) + matrix[:, 2]])
        part = frame[y0:y1, x0:x1].astype(np.float32)
        warped = cv2.warpAffine(part, shifted, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        mouth[...] = cv2.cvtColor(warped.astype(np.uint8), cv2.COLOR_RGB2GRAY)
    return mouths


def mouth_rois(frames: U8, landmarks_px: F32) -> U8:
    """AV-HuBERT's mouth regions of a whole clip: frames [T,H,W,3], landmarks [T,68,2] to grey [T,96,96]."""
    return crop_mouths(frames, mouth_matrices(landmarks_px))
