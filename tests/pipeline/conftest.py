"""Faces of real clips for the tests of crops, masks and poses."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import dlib
import numpy as np
import pytest

from syncdiff.pipeline.records import F32, U8


@dataclass(frozen=True)
class RealFace:
    """frames [T,H,W,3] RGB and dlib's raw landmarks [T,68,2] of the largest face."""

    frames: U8
    landmarks_px: F32


@pytest.fixture(scope="session")
def real_face(realdata: Path) -> Callable[[str], RealFace]:
    """Reads 50 frames of a real clip (two seconds, from the start) and marks the face in them."""
    spec = importlib.util.find_spec("face_recognition_models")
    assert spec is not None and spec.submodule_search_locations
    models = Path(spec.submodule_search_locations[0]) / "models"
    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(models / "shape_predictor_68_face_landmarks.dat"))

    @cache
    def read(name: str) -> RealFace:
        capture = cv2.VideoCapture(str(realdata / name))
        frames: list[U8] = []
        points: list[F32] = []
        while len(frames) < 50:
            more, picture = capture.read()
            if not more:
                break
            frames.append(np.ascontiguousarray(picture[..., ::-1]))
            if len(frames) % 5 == 1:
                box = max(detector(frames[-1]), key=lambda found: found.area())
            parts = predictor(frames[-1], box).parts()
            points.append(np.array([(part.x, part.y) for part in parts], np.float32))
        return RealFace(np.stack(frames), np.stack(points))

    return read
