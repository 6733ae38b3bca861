"""Where the faces are in one frame, and their 68 landmarks: what a backend offers, and the face box.

A backend answers questions about single frames and remembers nothing between them; following a face from
frame to frame is the business of `faces.tracker`. "Face box" means everywhere the square that dlib's HOG
detector puts on a face (brows to chin); a backend with other boxes converts to and from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from syncdiff.pipeline.records import F32, U8, check_array

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
# As complex numbers x + iy, in which a similarity is a product and a sum.
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
    """Landmarks of n faces in one frame: landmarks_px [n,68,2] float32, uncertainty [n] float32.

    Uncertainty is 0 where the predictor is certain of the whole shape; its scale is the backend's own.
    """

    landmarks_px: F32
    uncertainty: F32

    def __post_init__(self) -> None:
        count = len(self.uncertainty)
        check_array("landmarks_px", self.landmarks_px, np.float32, (count, 68, 2))
        check_array("uncertainty", self.uncertainty, np.float32, (count,))

    def at(self, index: int) -> Shapes:
        """The one face of this index."""
        return Shapes(self.landmarks_px[index : index + 1], self.uncertainty[index : index + 1])


@dataclass(frozen=True)
class Seen:
    """All faces of one frame: scores [n] float32, and their shapes."""

    scores: F32
    shapes: Shapes

    def __post_init__(self) -> None:
        check_array("scores", self.scores, np.float32, (len(self.shapes.uncertainty),))


class FaceBackend(Protocol):
    """A detector and landmark predictor, a `FrameBackend` or a `BatchBackend`. Frames are RGB uint8 [H,W,3].

    A shape with more than `max_uncertainty`, or a face whose score is below `min_score`, is no face.
    """

    @property
    def name(self) -> str: ...
    @property
    def max_uncertainty(self) -> float: ...
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

    `detector_levels` counts the ways `detect` can look, from cheap (0) to thorough (the highest).
    """

    @property
    def detector_levels(self) -> int: ...

    def detect(self, frame: U8, level: int = 0) -> Detections:
        """Faces anywhere in the frame, by the detector of this level."""
        ...

    def fit(self, frame: U8, boxes_px: F32, roll_rad: F32) -> Shapes:
        """Landmarks of the faces in `boxes_px` [n,4], each tilted by `roll_rad` [n], in frame pixels."""
        ...

    def landmarks(self, frame: U8, boxes_px: F32, roll_rad: F32) -> F32:
        """Landmarks [n,68,2] as of `fit`, in less time: without the uncertainty."""
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
