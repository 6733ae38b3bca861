from __future__ import annotations

from pathlib import Path

import dlib
import numpy as np
import pytest
import torch

from syncdiff.evaluate.clip_pair import Faces, Footage
from syncdiff.evaluate.metrics.identity.csim import (
    ARCFACE_POINTS_PX,
    DlibEmbedder,
    Identity,
    TorchScriptEmbedder,
    arcface_points,
)
from syncdiff.pipeline.faces.dlib import DlibBackend
from syncdiff.pipeline.records import ClipError

from ...conftest import MovingFootage, StillFootage, StillPair, pair_of, values_of


def test_embedding_is_dlibs_own(realdata: Path):
    clip = Footage(realdata / "vretalk_5.mp4", DlibBackend)
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
        clip = Footage(realdata / name, lambda: backend)
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
    assert values_of(metric, pair_of(true, true))["csim"] == pytest.approx(1)
    assert metric.settings()["network"].startswith("network.pt sha256:")


def test_a_lost_face_scores_the_least_there_is(tmp_path: Path):
    path = tmp_path / "network.pt"
    torch.jit.script(Mean()).save(path)
    picture = np.full((160, 200, 3), (0, 127, 255), np.uint8)
    true = MovingFootage(np.full(20, 0.1), frames=[picture] * 20)
    partly = Faces(np.arange(20) < 10, true.faces.landmarks_px)
    made = MovingFootage(np.full(20, 0.1), frames=[picture] * 20, faces=partly)
    metric = Identity(TorchScriptEmbedder(path, "cpu"))
    assert values_of(metric, pair_of(made, true)) == pytest.approx(
        {"csim": 0, "csim_face_lost": 50}, abs=1e-6
    )
    black = StillFootage(picture, 20, face=False)
    assert values_of(metric, pair_of(black, true)) == {"csim": -1, "csim_face_lost": 100}


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
