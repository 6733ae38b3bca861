"""Faces for the tests of crops, masks and poses: of real clips, and of the sample's two people."""

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
from syncdiff.pipeline.sample.faces import Portrait, read_carphone, sway
from syncdiff.pipeline.sample.speech import speak_opening


@dataclass(frozen=True)
class RealFace:
    """frames [T,H,W,3] RGB and dlib's raw landmarks [T,68,2] of the largest face."""

    frames: U8
    landmarks_px: F32


def portrait_frames(count: int) -> list[U8]:
    rng = np.random.default_rng(0)
    portrait = Portrait()
    moments = zip(speak_opening(count, rng), sway(count, rng), strict=True)
    return [portrait.frame(opening, head) for opening, head in moments]


def first_frames(path: Path, count: int) -> list[U8]:
    capture = cv2.VideoCapture(str(path))
    frames: list[U8] = []
    while len(frames) < count and (read := capture.read())[0]:
        frames.append(np.ascontiguousarray(read[1][..., ::-1]))
    return frames


@pytest.fixture(scope="session")
def real_face(request: pytest.FixtureRequest) -> Callable[[str], RealFace]:
    """Reads 50 frames of a clip (two seconds, from the start) and marks the face in them.

    "carphone" (a man filmed while he talks) and "portrait" (the speaking astronaut) come with installed
    packages; any other name is a file of `realdata`, and the test is skipped where that is not there.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    assert spec is not None and spec.submodule_search_locations
    models = Path(spec.submodule_search_locations[0]) / "models"
    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(models / "shape_predictor_68_face_landmarks.dat"))

    @cache
    def read(name: str) -> RealFace:
        if name == "carphone":
            frames = list(read_carphone().frames[:50])
        elif name == "portrait":
            frames = portrait_frames(50)
        else:
            frames = first_frames(request.getfixturevalue("realdata") / name, 50)
        points: list[F32] = []
        for index, frame in enumerate(frames):
            if index % 5 == 0:
                box = max(detector(frame), key=lambda rectangle: rectangle.area())
            parts = predictor(frame, box).parts()
            points.append(np.array([(part.x, part.y) for part in parts], np.float32))
        return RealFace(np.stack(frames), np.stack(points))

    return read
