"""Landmark distance, identity, sharpness, stability: closed forms, and order under known damage."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import dlib
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from syncdiff.evaluate.clip_pair import ClipPair, Faces, Footage
from syncdiff.evaluate.metrics.csim import (
    ARCFACE_POINTS_PX,
    DlibEmbedder,
    Identity,
    TorchScriptEmbedder,
    arcface_points,
)
from syncdiff.evaluate.metrics.lmd import LandmarkDistance
from syncdiff.evaluate.metrics.sharpness import Sharpness, cpbd, edge_widths, measure_face
from syncdiff.evaluate.metrics.temporal_stability import Stability
from syncdiff.pipeline.faces.dlib import DlibBackend
from syncdiff.pipeline.records import ClipError

from ..conftest import MovingFootage, StillPair, pair_of


def values(metric, pair: ClipPair) -> dict[str, float]:
    return metric.score(metric.measure(pair))


def shifted(faces: Faces, by_px: tuple[float, float]) -> Faces:
    return Faces(faces.present, faces.landmarks_px + np.float32(by_px))


@settings(max_examples=20, deadline=None)
@given(dx=st.floats(-9, 9), dy=st.floats(-9, 9), face_px=st.integers(64, 512))
def test_landmark_distance_of_a_shifted_face(dx: float, dy: float, face_px: int):
    true = MovingFootage(np.full(10, 0.2))
    made = MovingFootage(np.full(10, 0.2), faces=shifted(true.faces, (dx, dy)))
    found = values(LandmarkDistance(face_px), pair_of(made, true))
    box, landmarks = true.faces.boxes_px[0], true.faces.landmarks_px[0]
    eyes = landmarks[36:42].mean(axis=0) - landmarks[42:48].mean(axis=0)
    distance = np.hypot(dx, dy)
    assert found["lmd"] == pytest.approx(distance / (box[2] - box[0]) * face_px, abs=1e-3)
    assert found["lmd_relative"] == pytest.approx(100 * distance / np.hypot(*eyes), abs=1e-3)


def test_landmark_distance_looks_at_the_mouth_only():
    true = MovingFootage(np.full(10, 0.2))
    elsewhere = true.faces.landmarks_px.copy()
    elsewhere[:, :48] += 7
    made = MovingFootage(np.full(10, 0.2), faces=Faces(true.faces.present, elsewhere))
    assert values(LandmarkDistance(256), pair_of(made, true)) == {"lmd": 0, "lmd_relative": 0}


def test_landmark_distance_without_common_frames():
    true = MovingFootage(np.full(10, 0.2))
    present = np.arange(10) < 5
    here = Faces(present, true.faces.landmarks_px)
    there = Faces(~present, true.faces.landmarks_px)
    with pytest.raises(ClipError) as error:
        LandmarkDistance(256).measure(
            pair_of(MovingFootage(np.zeros(10), faces=here), MovingFootage(np.zeros(10), faces=there))
        )
    assert error.value.reason == "no-face"


def ramps(width: int) -> np.ndarray:
    """A picture [128,128] whose rows rise from 20 to 220 over `width` pixels and fall the same way, twice."""
    rise = np.linspace(20, 220, width + 1)
    bump = np.concatenate([np.full(10, 20), rise, np.full(20, 220), rise[::-1], np.full(64, 20)])[:64]
    return np.tile(bump.astype(np.uint8), (128, 2))


@pytest.mark.parametrize("width", [1, 2, 5, 9])
def test_width_of_an_edge(width: int):
    picture = ramps(width)
    assert (edge_widths(picture)[:, 10 : 11 + width] == width).all()
    assert (edge_widths(255 - picture)[:, 10 : 11 + width] == width).all()


def test_cpbd_of_sharp_and_wide_edges():
    # at a contrast above 50 an edge of 3 px is just noticeable: 1 - exp(-1) = 0.632 lies above 0.63
    assert cpbd(ramps(1)) == cpbd(ramps(2)) == 1.0
    assert cpbd(ramps(3)) == cpbd(ramps(9)) == 0.0
    assert cpbd(np.full((128, 128), 7, np.uint8)) == 0.0


def test_sharpness_falls_with_blur():
    face = cv2.resize(skimage.data.astronaut()[:256, 96:352], (128, 128), interpolation=cv2.INTER_AREA)
    measured = [measure_face(cv2.GaussianBlur(face, (0, 0), sigma)) for sigma in (0.3, 0.8, 1.6)]
    for sharp, blurred in pairwise(measured):
        assert (np.array(sharp) > np.array(blurred)).all()


def test_sharpness_needs_a_face():
    picture = np.zeros((90, 90, 3), np.uint8)
    with pytest.raises(ClipError):
        Sharpness().measure(StillPair(picture, picture, face=False).pair)


def test_stability_closed_form():
    """White noise of 4 grey levels in each frame: the frame difference has twice the variance."""
    rng = np.random.default_rng(0)
    still = np.full((160, 200, 3), 128, np.uint8)
    greys = rng.normal(128, 4, (12, 160, 200, 1)).round().repeat(3, axis=3)
    true = MovingFootage(np.zeros(12), frames=[still] * 12)
    made = MovingFootage(np.zeros(12), frames=list(greys.astype(np.uint8)))
    found = values(Stability(), pair_of(made, true))
    assert found["flicker_mouth"] == pytest.approx(np.sqrt(2 * 16 + 2 / 12), rel=0.03)
    assert found["flicker_static"] == pytest.approx(found["flicker_mouth"], rel=0.03)
    assert found["motion_mouth"] > 20
    assert values(Stability(), pair_of(true, true)) == {
        "flicker_mouth": 0,
        "flicker_static": 0,
        "motion_mouth": 0,
    }
    assert values(Stability(), pair_of(true, made))["motion_mouth"] == pytest.approx(-found["motion_mouth"])


def test_stability_where_the_face_fills_the_picture():
    true = MovingFootage(np.zeros(5), face_share=1.2)
    with pytest.raises(ClipError) as error:
        Stability().measure(pair_of(true, true))
    assert error.value.reason == "no-static-region"


def test_embedding_is_dlibs_own(realdata: Path):
    clip = Footage(realdata / "vretalk_5.mp4", DlibBackend())
    frame, landmarks = next(clip.frames()), clip.speaker.landmarks_px[0]
    model = dlib.face_recognition_model_v1(str(DlibEmbedder().model_path))
    points = [dlib.point(int(x), int(y)) for x, y in np.rint(landmarks)]
    shape = dlib.full_object_detection(dlib.rectangle(0, 0, 1, 1), points)
    theirs = np.array(model.compute_face_descriptor(frame, shape))
    np.testing.assert_allclose(DlibEmbedder().embed(frame, landmarks), theirs, atol=1e-6)


def test_identity_tells_people_apart(realdata: Path):
    backend, embedder = DlibBackend(), DlibEmbedder()
    embeddings = {}
    for name in ("vretalk_5.mp4", "vretalk_2.mp4"):
        clip = Footage(realdata / name, backend)
        frames = [frame for frame, _ in zip(clip.frames(), range(60), strict=False)]
        embeddings[name] = [embedder.embed(frames[t], clip.speaker.landmarks_px[t]) for t in (5, 50)]
    (a, b), (c, _) = embeddings.values()
    same, other = (x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in ((a, b), (a, c)))
    assert same > 0.95 > other


class Mean(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean(dim=(2, 3))


def test_another_network_gets_arcface_input(tmp_path: Path):
    path = tmp_path / "network.pt"
    torch.jit.script(Mean()).save(path)
    embedder = TorchScriptEmbedder(path, "cpu")
    picture = np.full((160, 200, 3), (0, 127, 255), np.uint8)
    true = MovingFootage(np.full(6, 0.1), frames=[picture] * 6)
    embedding = embedder.embed(picture, true.faces.landmarks_px[0])
    np.testing.assert_allclose(embedding, [-1, -0.5 / 127.5, 1], atol=1e-6)
    metric = Identity(embedder)
    assert values(metric, pair_of(true, true))["csim"] == pytest.approx(1)
    assert metric.settings()["network"].startswith("network.pt sha256:")


def test_arcface_alignment_puts_the_points_in_place():
    landmarks = np.zeros((68, 2), np.float32)
    eye, other_eye, nose, left, right = np.array(ARCFACE_POINTS_PX, np.float32)
    landmarks[36:42], landmarks[42:48], landmarks[30], landmarks[48], landmarks[54] = (
        eye,
        other_eye,
        nose,
        left,
        right,
    )
    np.testing.assert_allclose(arcface_points(landmarks), ARCFACE_POINTS_PX, rtol=1e-6)


def test_identity_without_a_face():
    picture = np.zeros((90, 90, 3), np.uint8)
    with pytest.raises(ClipError):
        Identity(DlibEmbedder()).measure(StillPair(picture, picture, face=False).pair)
