"""CSIM: does the generated face still look like the same person? Cosine of face embeddings, frame by frame.

The embedding is dlib's by default: a ResNet of 29 layers on a 150x150 aligned face, 128 values (King, "High
quality face recognition with deep metric learning", 2017), whose model comes with the package
face-recognition-models. Papers mostly take an ArcFace network, whose cosines are on another scale: such a
network can be given as a TorchScript file, and the report then names it.

A sampled frame in which the reference has a face and the generated clip has none is a miss: it scores -1, the
least that a cosine can be, so that a lost face never scores above one that is there, whatever the network.
Left out, it would make the method best that lost the hardest frames. `csim_face_lost` is the share of such
frames.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Protocol

import cv2
import dlib
import numpy as np
import torch
from numpy.typing import NDArray

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value, face_lost
from syncdiff.evaluate.reference_features import ReferenceFeatures
from syncdiff.pipeline.faces.align import fit_similarities
from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.records import F32, U8, ClipError

MISS = -1.0
FRAME_STEP = 5  # five faces a second: identity does not change from frame to frame, and embedding is slow
DLIB_CHIP_PX = 150
DLIB_CHIP_PADDING = 0.25
# Where ArcFace networks expect the eyes, the nose tip and the corners of the mouth in 112x112 pixels
# (deepinsight/insightface, recognition/common/face_align.py).
ARCFACE_POINTS_PX = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
ARCFACE_SIZE_PX = 112


class FaceEmbedder(Protocol):
    """name: what reports call it. embed: frame [H,W,3] RGB and landmarks [68,2] to a vector [D]."""

    name: str

    def embed(self, frame: U8, landmarks_px: F32) -> NDArray[np.float64]: ...


class Identity(Metric):
    name = "identity"
    values = (Value("csim", "CSIM", "higher"), face_lost("csim"))
    version = 2

    def __init__(self, embedder: FaceEmbedder, kept: ReferenceFeatures | None = None) -> None:
        self._embedder = embedder
        self._kept = kept or ReferenceFeatures()

    def settings(self) -> dict[str, Any]:
        return {"network": self._embedder.name, "frame_step": FRAME_STEP}

    def measure(self, pair: ClipPair) -> Statistics:
        reference, generated = pair.reference_faces, pair.generated_faces
        wanted = reference.present.copy()
        wanted[np.arange(len(wanted)) % FRAME_STEP != 0] = False
        if not wanted.any():
            raise ClipError(self.name, "no-face", "the reference's face is in no sampled frame")
        theirs = iter(
            self._kept.of(
                (
                    (frame, reference.landmarks_px[index])
                    for index, (_, frame) in enumerate(pair.frames())
                    if wanted[index] and generated.present[index]
                ),
                lambda faces: np.array([self._embedder.embed(*face) for face in faces]),
            )
        )
        cosines = [
            _cosine(self._embedder.embed(frame, generated.landmarks_px[index]), next(theirs))
            if generated.present[index]
            else MISS
            for index, (frame, _) in enumerate(pair.frames())
            if wanted[index]
        ]
        return {"per_frame": np.array(cosines), "lost": ~generated.present[wanted]}

    def score(self, statistics: Statistics) -> dict[str, float]:
        return {
            "csim": float(np.mean(statistics["per_frame"])),
            "csim_face_lost": float(np.mean(statistics["lost"])) * 100,
        }


class DlibEmbedder:
    """Raises ClipError("identity", "model-missing") where face-recognition-models is not installed."""

    name = "dlib_face_recognition_resnet_model_v1"

    def __init__(self) -> None:
        self.model_path = _dlib_model(f"{self.name}.dat")
        self._network = dlib.face_recognition_model_v1(str(self.model_path))

    def embed(self, frame: U8, landmarks_px: F32) -> NDArray[np.float64]:
        points = [dlib.point(int(x), int(y)) for x, y in np.rint(landmarks_px)]
        shape = dlib.full_object_detection(dlib.rectangle(0, 0, 1, 1), points)
        chip = dlib.get_face_chip(np.ascontiguousarray(frame), shape, DLIB_CHIP_PX, DLIB_CHIP_PADDING)
        return np.array(self._network.compute_face_descriptor(chip))


class TorchScriptEmbedder:
    """A network in a TorchScript file, of ArcFace's input: [1,3,112,112] RGB, (value - 127.5) / 127.5."""

    def __init__(self, path: Path, device: str) -> None:
        self.name = f"{path.name} sha256:{sha256_file(path)}"
        self._network = torch.jit.load(path, map_location=device).eval()
        self._device = device

    @torch.inference_mode()
    def embed(self, frame: U8, landmarks_px: F32) -> NDArray[np.float64]:
        matrix = fit_similarities(arcface_points(landmarks_px)[None], np.array(ARCFACE_POINTS_PX))[0]
        face = cv2.warpAffine(frame, matrix, (ARCFACE_SIZE_PX, ARCFACE_SIZE_PX))
        pixels = torch.from_numpy(face).to(self._device).permute(2, 0, 1)[None].float()
        return np.asarray(self._network((pixels - 127.5) / 127.5)[0].double().cpu().numpy())


def arcface_points(landmarks_px: F32) -> NDArray[np.float64]:
    """Centres of both eyes, nose tip, and corners of the mouth [5,2] out of 68 landmarks."""
    eyes = [landmarks_px[36:42].mean(axis=0), landmarks_px[42:48].mean(axis=0)]
    return np.stack([*eyes, landmarks_px[30], landmarks_px[48], landmarks_px[54]]).astype(np.float64)


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def _dlib_model(file: str) -> Path:
    # importing face_recognition_models needs pkg_resources, which today's setuptools no longer brings
    spec = importlib.util.find_spec("face_recognition_models")
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place) / "models" / file
        if path.is_file():
            return path
    raise ClipError(
        "identity", "model-missing", "dlib's models are missing: pip install face-recognition-models"
    )
