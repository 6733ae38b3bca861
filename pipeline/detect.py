"""Where the faces are in one frame, and their 68 landmarks: the interface and the default backend, dlib.

A backend answers questions about single frames and remembers nothing between them; following a face from
frame to frame is the business of `syncdiff.pipeline.follow`. "Face box" means everywhere the square that
dlib's HOG detector puts on a face (brows to chin); a backend with other boxes converts to and from it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray

from syncdiff.pipeline.patch import even_exposure, upright_patch
from syncdiff.pipeline.records import F32, U8, ClipError, check_array

# The 68 points in the unit face box from which dlib's predictor starts: `initial_shape` in the header of
# shape_predictor_68_face_landmarks.dat (mean of the iBUG 300-W training shapes relative to HOG boxes).
# fmt: off
MEAN_SHAPE: F32 = np.array(
    [
        # jaw 0-16
        (.0294, .3219), (.0326, .4464), (.0459, .5704), (.0718, .6920), (.1203, .8050), (.1947, .9029),
        (.2858, .9846), (.3863, 1.0502), (.5000, 1.0697), (.6137, 1.0502), (.7142, .9846), (.8053, .9029),
        (.8797, .8050), (.9282, .6920), (.9541, .5704), (.9674, .4464), (.9706, .3219),
        # brows 17-26
        (.1192, .2309), (.1775, .1784), (.2598, .1627), (.3451, .1749), (.4249, .2081),
        (.5751, .2081), (.6550, .1749), (.7402, .1627), (.8225, .1784), (.8809, .2309),
        # nose 27-35
        (.5000, .3055), (.5000, .3857), (.5000, .4652), (.5000, .5470),
        (.4045, .6023), (.4504, .6192), (.5000, .6337), (.5497, .6192), (.5955, .6023),
        # eyes 36-47
        (.2139, .3156), (.2647, .2863), (.3259, .2872), (.3794, .3276), (.3221, .3378), (.2612, .3370),
        (.6207, .3276), (.6742, .2872), (.7353, .2863), (.7862, .3156), (.7388, .3370), (.6780, .3378),
        # outer lips 48-59
        (.3171, .7511), (.3844, .7242), (.4525, .7103), (.5000, .7220), (.5475, .7103), (.6156, .7242),
        (.6829, .7511), (.6178, .8169), (.5516, .8460), (.5000, .8515), (.4484, .8460), (.3823, .8169),
        # inner lips 60-67
        (.3452, .7547), (.4519, .7499), (.5000, .7550), (.5481, .7499), (.6548, .7547),
        (.5490, .7857), (.5000, .7916), (.4510, .7857),
    ],
    dtype=np.float32,
)
# fmt: on
_FROM_MEAN = (MEAN_SHAPE - MEAN_SHAPE.mean(axis=0)) @ np.array([1, 1j])
_MEAN_TO_CENTRE = complex(*(0.5 - MEAN_SHAPE.mean(axis=0)))


@dataclass(frozen=True)
class Detections:
    """Faces found in one frame: boxes_px [n,4] float32 (x0, y0, x1, y1), scores [n] float32, best first."""

    boxes_px: F32
    scores: F32

    def __post_init__(self) -> None:
        count = len(self.scores)
        check_array("boxes_px", self.boxes_px, np.float32, (count, 4))
        check_array("scores", self.scores, np.float32, (count,))

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Shapes:
    """Landmarks of n faces in one frame: landmarks_px [n,68,2] float32, doubt [n] float32.

    Doubt is 0 where the predictor is certain of the whole shape; its scale is the backend's own.
    """

    landmarks_px: F32
    doubt: F32

    def __post_init__(self) -> None:
        count = len(self.doubt)
        check_array("landmarks_px", self.landmarks_px, np.float32, (count, 68, 2))
        check_array("doubt", self.doubt, np.float32, (count,))

    def at(self, index: int) -> Shapes:
        """The one face of this index."""
        return Shapes(self.landmarks_px[index : index + 1], self.doubt[index : index + 1])


@dataclass(frozen=True)
class Seen:
    """All faces of one frame: scores [n] float32, and their shapes."""

    scores: F32
    shapes: Shapes

    def __post_init__(self) -> None:
        check_array("scores", self.scores, np.float32, (len(self.shapes.doubt),))


class FaceBackend(Protocol):
    """A detector and landmark predictor, a `FrameBackend` or a `BatchBackend`. Frames are RGB uint8 [H,W,3].

    A shape with more doubt than `max_doubt`, or a face whose score is below `min_score`, is no face.
    """

    @property
    def name(self) -> str: ...
    @property
    def max_doubt(self) -> float: ...
    @property
    def min_score(self) -> float: ...


@runtime_checkable
class BatchBackend(FaceBackend, Protocol):
    """One that sees frames by themselves, and gains from seeing `batch_frames` of them at once."""

    @property
    def batch_frames(self) -> int: ...

    def observe(self, frames: Sequence[U8]) -> list[Seen]:
        """All faces in each of the frames, which have one size."""
        ...


@runtime_checkable
class FrameBackend(FaceBackend, Protocol):
    """One that is asked about single places too, so that faces can be followed instead of detected.

    `efforts` counts the ways `detect` can look, from cheap (0) to thorough (efforts - 1).
    """

    @property
    def efforts(self) -> int: ...

    def detect(self, frame: U8, effort: int = 0) -> Detections:
        """Faces anywhere in the frame."""
        ...

    def fit(self, frame: U8, boxes_px: F32, roll_rad: F32) -> Shapes:
        """Landmarks of the faces in `boxes_px` [n,4], each tilted by `roll_rad` [n], in frame pixels."""
        ...

    def landmarks(self, frame: U8, boxes_px: F32, roll_rad: F32) -> F32:
        """Landmarks [n,68,2] as of `fit`, in less time: without the doubt."""
        ...

    def verify(self, frame: U8, box_px: F32, roll_rad: float, thorough: bool = False) -> float:
        """Detector's confidence that there is a face in the box [4], looking nowhere else."""
        ...


def box_of_shape(landmarks_px: F32) -> tuple[F32, F32]:
    """Face boxes [n,4] and roll [n] (radians, clockwise in the picture) that explain landmarks [n,68,2].

    The least-squares similarity from MEAN_SHAPE to the landmarks (Umeyama 1991, in complex form), applied to
    the unit box: the box from which the predictor would have had the least way to go.
    """
    points = landmarks_px[..., 0] + 1j * landmarks_px[..., 1].astype(np.float64)
    centroid = points.mean(axis=1)
    similarity = (points - centroid[:, None]) @ _FROM_MEAN.conj() / np.vdot(_FROM_MEAN, _FROM_MEAN).real
    centre = centroid + similarity * _MEAN_TO_CENTRE
    half = np.abs(similarity) / 2
    boxes = np.stack([centre.real - half, centre.imag - half, centre.real + half, centre.imag + half], axis=1)
    return boxes.astype(np.float32), np.angle(similarity).astype(np.float32)


def box_iou(a: F32, b: F32) -> F32:
    """Intersection over union [n,m] of boxes [n,4] and [m,4]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area_a = (a[:, 2:] - a[:, :2]).prod(axis=1)
    area_b = (b[:, 2:] - b[:, :2]).prod(axis=1)
    union = area_a[:, None] + area_b[None, :] - shared
    return np.asarray(shared / np.maximum(union, 1e-6), np.float32)


def make_backend(name: str) -> FaceBackend:
    """The backend of this name: "dlib" or "face-alignment".

    Raises ValueError for another name; where model files are not there ClipError("track", "model-missing")
    (dlib) or WeightsError (face-alignment), which say how to get them.
    """
    if name == "dlib":
        return DlibBackend()
    if name == "face-alignment":
        from syncdiff.pipeline.detect_fan import FaceAlignmentBackend  # brings torch, which dlib does without

        return FaceAlignmentBackend()
    raise ValueError(f"unknown face tracker {name!r}: there are dlib and face-alignment")


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
    MMOD: King 2015 on a small CNN. HOG and MMOD see faces from 80 px on the image they are given. The efforts
    of `detect`: HOG on the image reduced to `search_side_px`; HOG on the image doubled, or reduced to
    `fine_side_px` if that is less; MMOD on the image doubled, or reduced to `mmod_side_px`. Scores are HOG's
    distance from its threshold (1 to 3 for faces from the front), for MMOD its confidence (0 to 1.1). Doubt
    is the mean distance between two predictions from differing starts, in box sides (0.003 to 0.02 where a
    face fits, 0.2 on a cartoon).

    Raises ClipError("track", "model-missing") when the files of `face-recognition-models` are not there.
    """

    name = "dlib"
    efforts = 3
    max_doubt = 0.04
    min_score = -0.4

    def __init__(self, search_side_px: int = 640, fine_side_px: int = 1600, mmod_side_px: int = 320) -> None:
        folder = _dlib_model_folder()
        self._sides_px = (search_side_px, fine_side_px, mmod_side_px)
        self._hog = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(folder / "shape_predictor_68_face_landmarks.dat"))
        self._mmod_path = folder / "mmod_human_face_detector.dat"
        self._mmod: dlib.cnn_face_detection_model_v1 | None = None

    def detect(self, frame: U8, effort: int = 0) -> Detections:
        small, scale = fit_side(frame, self._sides_px[effort], enlarge=2.0 if effort else 1.0)
        grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
        if effort == 2:
            return _as_detections(*self._run_mmod(grey), scale)
        rectangles, scores, _ = self._hog.run(grey, 0, 0.0)
        return _as_detections(rectangles, scores, scale)

    def fit(self, frame: U8, boxes_px: F32, roll_rad: F32) -> Shapes:
        shapes = np.empty((len(boxes_px), 68, 2), np.float32)
        doubt = np.empty(len(boxes_px), np.float32)
        for index, (box, roll) in enumerate(zip(boxes_px, roll_rad, strict=True)):
            patch, to_frame = _face_patch(frame, box, float(roll))
            first, second = (self._predict(patch, start) for start in _STARTS)
            shapes[index] = _moved((first + second) / 2, to_frame)
            doubt[index] = np.hypot(*(first - second).T).mean() / _PREDICTOR_FACE_PX
        return Shapes(shapes, doubt)

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
        found = self._mmod(grey, 0)
        return [one.rect for one in found], [float(one.confidence) for one in found]


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


def _dlib_model_folder() -> Path:
    # `import face_recognition_models` needs pkg_resources, which today's setuptools no longer brings
    spec = importlib.util.find_spec("face_recognition_models")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "models"
        if (folder / "shape_predictor_68_face_landmarks.dat").is_file():
            return folder
    detail = "dlib's models are not installed: pip install face-recognition-models"
    raise ClipError("track", "model-missing", detail)
