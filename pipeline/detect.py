"""Where the faces are in one frame, and their 68 landmarks: the interface and the default backend, dlib.

A backend answers three questions and remembers nothing between them; following a face from frame to frame is
`syncdiff.pipeline.track`'s business. "Face box" means everywhere the square that dlib's HOG detector puts on
a face (brows to chin); a backend with other boxes converts to and from it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import dlib
import numpy as np
from numpy.typing import NDArray

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


class FaceBackend(Protocol):
    """What the tracker asks of a detector and a landmark predictor. Frames are RGB uint8 [H,W,3].

    `efforts` counts the ways `detect` can look, from cheap (0) to thorough (efforts - 1). `min_score` is the
    `verify` score below which a followed face no longer counts as one.
    """

    name: str
    efforts: int
    min_score: float

    def detect(self, frame: U8, effort: int = 0) -> Detections:
        """Faces anywhere in the frame."""
        ...

    def landmarks(self, frame: U8, boxes_px: F32, roll_rad: F32) -> F32:
        """Landmarks [n,68,2] in frame pixels of the faces in `boxes_px` [n,4], tilted by `roll_rad` [n]."""
        ...

    def verify(self, frame: U8, boxes_px: F32, roll_rad: F32) -> F32:
        """Detector confidence [n] that there is a face at each of the boxes, looking nowhere else."""
        ...


def box_of_shape(landmarks_px: F32) -> tuple[F32, F32]:
    """Face boxes [n,4] and roll [n] (radians, clockwise in the picture) that explain landmarks [n,68,2].

    The least-squares similarity from MEAN_SHAPE to the landmarks (Umeyama 1991, in complex form), applied to
    the unit box: the box from which the predictor would have had the least way to go.
    """
    mean = MEAN_SHAPE.mean(axis=0)
    reference = _complex(MEAN_SHAPE - mean)
    centroid = landmarks_px.mean(axis=1)
    centred = _complex(landmarks_px - centroid[:, None])
    similarity = (centred * reference.conj()).sum(axis=1) / (np.abs(reference) ** 2).sum()
    centre = _complex(centroid) + similarity * _complex(np.float32(0.5) - mean)
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
    result: F32 = (shared / np.maximum(union, 1e-6)).astype(np.float32)
    return result


class DlibBackend:
    """HOG detector, MMOD CNN when asked for the last effort, and the 68-point regression-tree predictor.

    HOG: Dalal & Triggs 2005 with the max-margin training of King 2015; predictor: Kazemi & Sullivan 2014. HOG
    sees faces from 80 px on the image it is given (its window); the efforts are: HOG on the image reduced to
    `search_side_px`; HOG on twice that resolution; MMOD on the image reduced to `mmod_side_px`.

    Raises ClipError("track", "model-missing") when the model files of `face-recognition-models` are not
    there.
    """

    name = "dlib"
    efforts = 3
    min_score = -0.4

    def __init__(self, search_side_px: int = 640, mmod_side_px: int = 360) -> None:
        folder = _dlib_model_folder()
        self._search_side_px = search_side_px
        self._mmod_side_px = mmod_side_px
        self._hog = dlib.get_frontal_face_detector()
        self._predictor = dlib.shape_predictor(str(folder / "shape_predictor_68_face_landmarks.dat"))
        self._mmod_path = folder / "mmod_human_face_detector.dat"
        self._mmod: dlib.cnn_face_detection_model_v1 | None = None

    def detect(self, frame: U8, effort: int = 0) -> Detections:
        if effort >= 2:
            return self._detect_mmod(frame)
        small, scale = _fit_side(frame, self._search_side_px * (1 + effort), enlarge=1.0 + effort)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        rectangles, scores, _ = self._hog.run(grey, 0, 0.0)
        return _as_detections(rectangles, scores, scale)

    def landmarks(self, frame: U8, boxes_px: F32, roll_rad: F32) -> F32:
        out = np.empty((len(boxes_px), 68, 2), np.float32)
        for index, (box, roll) in enumerate(zip(boxes_px, roll_rad, strict=True)):
            out[index] = self._predict(frame, box, float(roll))
        return out

    def verify(self, frame: U8, boxes_px: F32, roll_rad: F32) -> F32:
        out = np.full(len(boxes_px), -1.0, np.float32)
        for index, (box, roll) in enumerate(zip(boxes_px, roll_rad, strict=True)):
            patch, _ = upright_patch(frame, box, float(roll), _HOG_FACE_PX, _HOG_MARGIN)
            _, scores, _ = self._hog.run(patch, 0, -1.0)
            out[index] = max(scores, default=-1.0)
        return out

    def _predict(self, frame: U8, box: F32, roll: float) -> NDArray[np.float64]:
        """Landmarks [68,2] of one face, read off an upright patch of fixed size.

        The patch makes the predictor's work independent of the tilt and size of the face, and, being larger
        than most faces, keeps its rounding to whole pixels (dlib's points are integers) well below the face's
        own noise.
        """
        patch, to_frame = upright_patch(frame, box, roll, _PREDICTOR_FACE_PX, _PREDICTOR_MARGIN)
        low = round((len(patch) - 1) / 2 - _PREDICTOR_FACE_PX / 2)
        shape = self._predictor(
            patch, dlib.rectangle(low, low, low + _PREDICTOR_FACE_PX, low + _PREDICTOR_FACE_PX)
        )
        points = np.array([(point.x, point.y) for point in shape.parts()], np.float64)
        result: NDArray[np.float64] = points @ to_frame[:, :2].T + to_frame[:, 2]
        return result

    def _detect_mmod(self, frame: U8) -> Detections:
        if self._mmod is None:  # loaded late: most data sets never need it
            self._mmod = dlib.cnn_face_detection_model_v1(str(self._mmod_path))
        small, scale = _fit_side(frame, self._mmod_side_px, enlarge=1.0)
        found = self._mmod(small, 0)
        return _as_detections([one.rect for one in found], [one.confidence for one in found], scale)


# Chosen on real clips: at 256 px the predictor's integer points cost 0.2 % of the distance between the eyes
# (jitter 0.7 % of it, against 0.9 % at 150 px; 400 px brings 0.65 % for twice the time).
_PREDICTOR_FACE_PX = 256
_PREDICTOR_MARGIN = 1.5
# The HOG window is 80 px; at 88 px upright faces score highest, and 1.3 times that leaves room for a shift of
# 10 px.
_HOG_FACE_PX = 88
_HOG_MARGIN = 1.3


def upright_patch(
    frame: U8, box: F32, roll: float, face_px: int, margin: float
) -> tuple[U8, NDArray[np.float64]]:
    """A grey square with the face upright and `face_px` wide, and the affine map [2,3] from it to the frame.

    The patch is `margin` times the face box; what lies beyond the frame repeats its edge.
    """
    centre = complex((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    side = float(box[2] - box[0])
    region, offset, reduction = _grey_region(frame, centre, side * margin, side / face_px)
    patch_px = round(face_px * margin)
    turn = side / face_px * complex(np.cos(roll), np.sin(roll))
    corner = centre - turn * complex(patch_px - 1, patch_px - 1) / 2
    to_frame = np.array([[turn.real, -turn.imag, corner.real], [turn.imag, turn.real, corner.imag]])
    to_region = to_frame / reduction
    # pixel centres are at whole numbers: reducing r-fold maps x to (x + 1/2) / r - 1/2
    to_region[:, 2] += (0.5 - np.asarray(offset)) / reduction - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(
        region, to_region, (patch_px, patch_px), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(patch, np.uint8), to_frame


def _grey_region(frame: U8, centre: complex, side: float, step: float) -> tuple[U8, tuple[int, int], int]:
    """The grey part of the frame that a tilted square of this side needs, its corner, and its whole-number
    reduction.

    Reduced by averaging when the patch would otherwise skip pixels (`step` frame pixels per patch pixel).
    """
    height, width = frame.shape[:2]
    reach = side * 0.75 + 2  # enough for 45 degrees of tilt
    reduction = max(1, int(step))
    x0 = int(np.clip(centre.real - reach, 0, width - 1))
    y0 = int(np.clip(centre.imag - reach, 0, height - 1))
    x1 = int(np.clip(centre.real + reach + 1, x0 + 1, width))
    y1 = int(np.clip(centre.imag + reach + 1, y0 + 1, height))
    region = frame[y0:y1, x0:x1]
    if reduction > 1:
        size = (max(1, (x1 - x0) // reduction), max(1, (y1 - y0) // reduction))
        region = region[: size[1] * reduction, : size[0] * reduction]
        region = np.asarray(cv2.resize(region, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.cvtColor(region, cv2.COLOR_RGB2GRAY), np.uint8), (x0, y0), reduction


def _fit_side(frame: U8, side_px: int, enlarge: float) -> tuple[U8, float]:
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
    places = list(spec.submodule_search_locations or []) if spec else []
    for place in places:
        folder = Path(place) / "models"
        if (folder / "shape_predictor_68_face_landmarks.dat").is_file():
            return folder
    raise ClipError(
        "track", "model-missing", "dlib's models are not installed: pip install face-recognition-models"
    )


def _complex(points: NDArray[np.floating]) -> NDArray[np.complex128]:
    result: NDArray[np.complex128] = points[..., 0].astype(np.float64) + 1j * points[..., 1]
    return result


def make_backend(name: str) -> FaceBackend:
    """The backend of this name: "dlib" or "face-alignment".

    Raises ValueError for another name, ClipError("track", "model-missing") where its model files are not
    there.
    """
    if name == "dlib":
        return DlibBackend()
    raise ValueError(f"unknown face tracker {name!r}: there are dlib and face-alignment")
