"""ArcFace networks in ONNX files, as papers take them for CSIM: `--arcface w600k_r50.onnx`.

Alignment and input are insightface's (deepinsight/insightface, python-package: utils/face_align.py and
model_zoo/arcface_onnx.py): the similarity that best brings five points to fixed places in 112x112, RGB,
(value - 127.5) / 127.5; networks converted from MXNet subtract and multiply themselves, and get 0 to 255. Its
five points are RetinaFace's; ours are made of dlib's 68 (eye centres, nose tip, corners of the mouth), so
cosines are near insightface's, not equal to them.

Its published networks (buffalo_l, antelopev2) are for non-commercial research.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from syncdiff.evaluate.metrics.identity.csim import ARCFACE_POINTS_PX, ARCFACE_SIZE_PX, arcface_points
from syncdiff.pipeline.faces.align import fit_similarities
from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.records import F32, U8, ClipError

FIRST_NODES = 8  # among which insightface looks for a network's own normalisation


class OnnxEmbedder:
    """Raises ClipError("identity", ...) with reason package-missing, or not-arcface for another network."""

    def __init__(self, path: Path) -> None:
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            detail = "ONNX files need onnx and onnxruntime: pip install 'syncdiff[arcface]'"
            raise ClipError("identity", "package-missing", detail) from error
        self.name = f"{path.name} sha256:{sha256_file(path)}"
        operations = {node.op_type for node in onnx.load(path).graph.node[:FIRST_NODES]}
        self._offset, self._scale = (0.0, 1.0) if {"Sub", "Mul"} <= operations else (127.5, 127.5)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._network = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs, outputs = self._network.get_inputs(), self._network.get_outputs()
        if len(inputs) != 1 or list(inputs[0].shape[1:]) != [3, ARCFACE_SIZE_PX, ARCFACE_SIZE_PX]:
            shapes = ", ".join(str(tensor.shape) for tensor in inputs)
            detail = f"{path.name}: expected one input [n,3,112,112], found {shapes}"
            raise ClipError("identity", "not-arcface", detail)
        self._input, self._output = inputs[0].name, outputs[0].name

    def embed(self, frame: U8, landmarks_px: F32) -> NDArray[np.float64]:
        (embedding,) = self._network.run([self._output], {self._input: self.pixels(frame, landmarks_px)})
        return np.asarray(embedding, np.float64).reshape(-1)

    def pixels(self, frame: U8, landmarks_px: F32) -> F32:
        """What the network gets: the aligned face [1,3,112,112]."""
        matrix = fit_similarities(arcface_points(landmarks_px)[None], np.array(ARCFACE_POINTS_PX))[0]
        face = cv2.warpAffine(frame, matrix, (ARCFACE_SIZE_PX, ARCFACE_SIZE_PX))
        pixels = (face.astype(np.float32) - self._offset) / self._scale
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
