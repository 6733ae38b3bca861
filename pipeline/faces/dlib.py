"""dlib's detectors and 68-point predictor as a face backend: the default, with models from PyPI."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray

from syncdiff.pipeline.faces.backend import Detections, Shapes
from syncdiff.pipeline.records import F32, U8, ClipError

# Chosen on real clips: at 256 px the predictor's integer points cost 0.2 % of the distance between the eyes
# (jitter 0.7 % of it, against 0.9 % at 150 px; 400 px brings 0.65 % for twice the time).
_PREDICTOR_FACE_PX = 256
_PREDICTOR_MARGIN = 1.5
# Where the two predictions start, in box sides: shift right and down, relative size. Their distance tells a
# face that fits from one that does not. A prediction takes half of the time of following a face.
_STARTS = ((0.05, 0.04, 1.04), (-0.05, -0.04, 0.96))
_CENTRED = (0.0, 0.0, 1.0)
# The HOG window is 80 px; at 88 px upright faces score highest, and 1.3 times that leaves a shift of 10 px.
_HOG_FACE_PX = 88
_HOG_MARGIN = 1.3
_MMOD_MARGIN = 1.45
_MMOD_LEAST_PX = 40  # its faces have 80 px; pictures of less than about 10 px make dlib fail
_NO_FACE = -1.0


class DlibBackend:
    """HOG detector, MMOD CNN where it is asked to be thorough, and the 68-point regression-tree predictor.

    HOG: Dalal & Triggs 2005 with the max-margin training of King 2015; predictor: Kazemi & Sullivan 2014;
    MMOD: King 2015 on a small CNN. HOG and MMOD see faces from 80 px on the image they are given. The levels
    of `detect`: (0) HOG on the image reduced to `search_side_px`; (1) HOG on the image doubled, or reduced to
    `fine_side_px` if that is less; (2) MMOD on the image doubled, or reduced to `mmod_side_px`. Scores are
    HOG's distance from its threshold (1 to 3 for faces from the front), for MMOD its confidence (0 to 1.1).
    Uncertainty is the mean distance between two predictions from differing starts, in box sides (0.003 to
    0.02 where a face fits, 0.2 on a cartoon).

    Raises ClipError("track", "model-missing") when the files of `face-recognition-models` are not there.
    """

    name = "dlib"
    detector_levels = 3
    max_uncertainty = 0.04
    min_score = -0.4

    def __init__(self, search_side_px: int = 640, fine_side_px: int = 1600, mmod_side_px: int = 320) -> None:
        # `import face_recognition_models` needs pkg_resources, which today's setuptools no longer brings
        spec = importlib.util.find_spec("face_recognition_models")
        folders = (Path(place) / "models" for place in (spec and spec.submodule_search_locations) or ())
        predictor = "shape_predictor_68_face_landmarks.dat"
        folder = next((folder for folder in folders if (folder / predictor).is_file()), None)
        if folder is None:
            detail = "dlib's models are not installed: pip install face-recognition-models"
            raise ClipError("track", "model-missing", detail)
        self._sides_px = (search_side_px, fine_side_px, mmod_side_px)
        self._hog = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(folder / predictor))
        self._mmod_path = folder / "mmod_human_face_detector.dat"
        self._mmod: dlib.cnn_face_detection_model_v1 | None = None

    def detect(self, frame: U8, level: int = 0) -> Detections:
        small, scale = fit_side(frame, self._sides_px[level], enlarge=2.0 if level else 1.0)
        grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
        if level == 2:
            return _as_detections(*self._run_mmod(grey), scale)
        rectangles, scores, _ = self._hog.run(grey, 0, 0.0)
        return _as_detections(rectangles, scores, scale)

    def fit(self, frame: U8, boxes_px: F32, roll_rad: F32) -> Shapes:
        shapes = np.empty((len(boxes_px), 68, 2), np.float32)
        uncertainty = np.empty(len(boxes_px), np.float32)
        for index, (box, roll) in enumerate(zip(boxes_px, roll_rad, strict=True)):
            patch, to_frame = _face_patch(frame, box, float(roll))
            first, second = (self._predict(patch, start) for start in _STARTS)
            shapes[index] = _moved((first + second) / 2, to_frame)
            uncertainty[index] = np.hypot(*(first - second).T).mean() / _PREDICTOR_FACE_PX
        return Shapes(shapes, uncertainty)

    def landmarks(self, frame: U8, boxes_px: F32, roll_rad: F32) -> F32:
        shapes = np.empty((len(boxes_px), 68, 2), np.float32)
        for index, (box, roll) in enumerate(zip(boxes_px, roll_rad, strict=True)):
            patch, to_frame = _face_patch(frame, box, float(roll))
            shapes[index] = _moved(self._predict(patch, _CENTRED), to_frame)
        return shapes

    def verify(self, frame: U8, box_px: F32, roll_rad: float, thorough: bool = False) -> float:
        margin = _MMOD_MARGIN if thorough else _HOG_MARGIN
        patch, _ = upright_patch(frame, box_px, roll_rad, _HOG_FACE_PX, margin)
        if thorough:
            return max(self._run_mmod(patch)[1], default=_NO_FACE)
        return float(max(self._hog.run(patch, 0, _NO_FACE)[1], default=_NO_FACE))

    def _predict(self, patch: U8, start: tuple[float, float, float]) -> NDArray[np.float64]:
        right, down, size = start
        middle, half = (len(patch) - 1) / 2, size * _PREDICTOR_FACE_PX / 2
        x, y = middle + right * _PREDICTOR_FACE_PX, middle + down * _PREDICTOR_FACE_PX
        box = dlib.rectangle(round(x - half), round(y - half), round(x + half), round(y + half))
        return np.array([(p.x, p.y) for p in self._predictor(patch, box).parts()], np.float64)

    def _run_mmod(self, grey: U8) -> tuple[list[dlib.rectangle], list[float]]:
        if min(grey.shape) < _MMOD_LEAST_PX:
            return [], []
        if self._mmod is None:  # loaded late: most data sets never need it
            self._mmod = dlib.cnn_face_detection_model_v1(str(self._mmod_path))
        faces = self._mmod(grey, 0)
        return [face.rect for face in faces], [float(face.confidence) for face in faces]


def _face_patch(frame: U8, box: F32, roll: float) -> tuple[U8, NDArray[np.float64]]:
    """The upright patch of fixed size from which landmarks are read, and the map from it to the frame.

    It makes the predictor independent of tilt, size and exposure, and, being larger than most faces, keeps
    its rounding to whole pixels (dlib's points are integers) well below the noise of the prediction.
    """
    patch, to_frame = upright_patch(frame, box, roll, _PREDICTOR_FACE_PX, _PREDICTOR_MARGIN)
    return even_exposure(patch), to_frame


def _moved(points: NDArray[np.float64], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(points @ affine[:, :2].T + affine[:, 2], np.float64)


def fit_side(frame: U8, side_px: int, enlarge: float) -> tuple[U8, float]:
    """The frame with its longer side at most `side_px`, enlarged at most `enlarge`-fold; and the scale."""
    height, width = frame.shape[:2]
    scale = min(enlarge, side_px / max(height, width))
    if scale == 1.0:
        return frame, 1.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, size, interpolation=how), np.uint8), scale


def _as_detections(rectangles: list[dlib.rectangle], scores: list[float], scale: float) -> Detections:
    boxes = np.array([(r.left(), r.top(), r.right() + 1, r.bottom() + 1) for r in rectangles], np.float32)
    order = np.argsort(-np.asarray(scores, np.float32), kind="stable")
    return Detections(boxes.reshape(-1, 4)[order] / np.float32(scale), np.asarray(scores, np.float32)[order])


# Mean and standard deviation that `even_exposure` gives the middle of a patch, in grey levels. The regression
# trees of dlib's predictor compare differences of grey levels with fixed thresholds, so a dark picture
# misleads them: measured on ten real clips, dividing the grey levels by 8 moves the landmarks by 15 % of the
# distance between the eyes without this, by 1.3 % with it.
_MEAN_LEVEL = 110.0
_LEVEL_SPREAD = 45.0
_LEAST_SPREAD = 2.0


def upright_patch(
    frame: U8, box: F32, roll_rad: float, face_px: int, margin: float
) -> tuple[U8, NDArray[np.float64]]:
    """A grey square with the face upright and `face_px` wide, and the affine map [2,3] from it to the frame.

    `frame` [H,W,3] RGB, `box` [4] the face box, `roll_rad` its clockwise tilt. The patch is `margin` times
    the box; what lies beyond the frame repeats its edge. Pixel centres are at whole numbers in both.
    """
    centre = complex((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    side = max(float(box[2] - box[0]), 1.0)
    region, offset, reduction = _grey_region(frame, centre, side * margin, side / face_px)
    patch_px = round(face_px * margin)
    turn = side / face_px * complex(np.cos(roll_rad), np.sin(roll_rad))
    corner = centre - turn * complex(patch_px - 1, patch_px - 1) / 2
    to_frame = np.array([[turn.real, -turn.imag, corner.real], [turn.imag, turn.real, corner.imag]])
    to_region = to_frame / reduction
    # a reduction by r maps the pixel centre x to (x + 1/2) / r - 1/2
    to_region[:, 2] += (0.5 - np.asarray(offset)) / reduction - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (patch_px, patch_px)
    patch = cv2.warpAffine(region, to_region, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(patch, np.uint8), to_frame


def even_exposure(patch: U8) -> U8:
    """The grey patch [P,P] scaled linearly so that its middle two thirds have a fixed mean and spread."""
    edge = len(patch) // 6
    mean, spread = cv2.meanStdDev(patch[edge : len(patch) - edge, edge : len(patch) - edge])
    gain = _LEVEL_SPREAD / max(float(spread[0, 0]), _LEAST_SPREAD)
    levels = (np.arange(256) - float(mean[0, 0])) * gain + _MEAN_LEVEL
    return np.asarray(cv2.LUT(patch, np.clip(np.rint(levels), 0, 255).astype(np.uint8)), np.uint8)


def _grey_region(frame: U8, centre: complex, side: float, step: float) -> tuple[U8, tuple[int, int], int]:
    """The grey part of the frame that a tilted square of this side needs, its corner, and its reduction.

    Reduced by a whole number, averaging, where the patch would skip pixels (`step` of the frame's to one of
    its).
    """
    height, width = frame.shape[:2]
    reach = side * 0.75 + 2  # enough for any tilt: half the diagonal is 0.71
    reduction = max(1, int(step))
    x0 = int(np.clip(centre.real - reach, 0, width - 1))
    y0 = int(np.clip(centre.imag - reach, 0, height - 1))
    x1 = int(np.clip(centre.real + reach + 1, x0 + 1, width))
    y1 = int(np.clip(centre.imag + reach + 1, y0 + 1, height))
    reduction = min(reduction, x1 - x0, y1 - y0)
    region = frame[y0:y1, x0:x1]
    if reduction > 1:
        size = ((x1 - x0) // reduction, (y1 - y0) // reduction)
        whole = region[: size[1] * reduction, : size[0] * reduction]
        region = np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.cvtColor(region, cv2.COLOR_RGB2GRAY), np.uint8), (x0, y0), reduction
