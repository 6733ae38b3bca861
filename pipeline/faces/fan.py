"""Faces and landmarks with S3FD and FAN of the package face-alignment: for GPUs and for hard poses.

S3FD: Zhang et al. 2017; FAN: Bulat & Tzimiropoulos 2017. The networks and the crop come from the package; the
frames of a batch go through them together, which the package's own interface does not do for faces of several
frames. Weights are never downloaded here; `syncdiff.pipeline.weights.published` says where they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from face_alignment.detection.sfd.bbox import nms
from face_alignment.detection.sfd.net_s3fd import s3fd
from face_alignment.models import FAN
from face_alignment.utils import crop, flip
from numpy.typing import NDArray

from syncdiff.pipeline.faces.backend import Detections, Seen, Shapes
from syncdiff.pipeline.faces.dlib import fit_side
from syncdiff.pipeline.records import F32, U8, CheckpointError
from syncdiff.pipeline.weights.published import WeightsError, require
from syncdiff.pipeline.weights.torch_file import read_weights

# Of the package: mean of the training pictures (BGR), thresholds of SFDDetector, how the square that FAN
# looks at follows from S3FD's box, size of its output, variances of S3FD's box coding.
_BGR_MEAN = (104.0, 117.0, 123.0)
_LEAST_SCORE = 0.5
_MOST_OVERLAP = 0.3
_REFERENCE_SCALE = 195.0
_SCALE_FACTOR = 200.0
_UP = 0.12
_HEATMAP_CELLS = 64
_VARIANCES = (0.1, 0.2)


class FaceAlignmentBackend:
    """S3FD on the frame reduced to `search_side_px`; FAN-4, on the mirrored face too, wherever it finds one.

    `device`: where the networks run, by default a GPU if there is one. Scores are S3FD's probabilities, 0.5
    to 1. Uncertainty is 1 minus the mean height of the 68 heatmaps' peaks: near 0 to 0.5 on faces, by the
    package's experience; it has not been calibrated here.

    Raises WeightsError when a file of weights is missing, is not the published one, or holds another network.
    """

    name = "face-alignment"
    batch_frames = 16
    max_uncertainty = 0.8
    min_score = _LEAST_SCORE

    def __init__(
        self,
        device: str | None = None,
        search_side_px: int = 640,
        max_faces: int = 10,
        faces_at_once: int = 32,
        allow_unverified: bool = False,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._search_side_px = search_side_px
        self._max_faces = max_faces
        self._faces_at_once = faces_at_once
        self._s3fd = _load(s3fd(), "s3fd", self.device, allow_unverified)
        self._fan = _load(FAN(4), "fan", self.device, allow_unverified)

    def observe(self, frames: Sequence[U8]) -> list[Seen]:
        """Faces and their landmarks in frames [H,W,3] of one size."""
        detections = self.detect(frames)
        boxes = np.concatenate([faces.boxes_px for faces in detections])
        owner = np.repeat(np.arange(len(frames)), [len(faces) for faces in detections])
        shapes = self.fit([frames[int(index)] for index in owner], boxes)
        return [
            Seen(faces.scores, Shapes(shapes.landmarks_px[owner == k], shapes.uncertainty[owner == k]))
            for k, faces in enumerate(detections)
        ]

    @torch.inference_mode()
    def detect(self, frames: Sequence[U8]) -> list[Detections]:
        """S3FD's boxes (forehead to chin) in frame pixels, at most `max_faces` in each frame, best first."""
        reduced = [fit_side(frame, self._search_side_px, enlarge=1.0) for frame in frames]
        scale = np.float32(reduced[0][1])
        batch = torch.from_numpy(np.stack([small for small, _ in reduced])).to(self.device)
        batch = batch.permute(0, 3, 1, 2).flip(1).float()
        batch -= torch.tensor(_BGR_MEAN, device=self.device).view(1, 3, 1, 1)
        detections = []
        for candidates in decode_s3fd(self._s3fd(batch)):
            if len(candidates):  # nms fails on none
                candidates = candidates[nms(candidates, _MOST_OVERLAP)][: self._max_faces]
            detections.append(Detections(candidates[:, :4] / scale, candidates[:, 4]))
        return detections

    @torch.inference_mode()
    def fit(self, frames: Sequence[U8], boxes_px: F32) -> Shapes:
        """Landmarks of one face in each of n frames, from S3FD's boxes [n,4]."""
        centres, scales = fan_squares(boxes_px)
        points = np.empty((len(frames), 68, 2), np.float32)
        peaks = np.empty(len(frames), np.float32)
        for start in range(0, len(frames), self._faces_at_once):
            part = slice(start, start + self._faces_at_once)
            crops = [crop(*args) for args in zip(frames[part], centres[part], scales[part], strict=True)]
            pictures = torch.from_numpy(np.stack(crops)).to(self.device).permute(0, 3, 1, 2).float() / 255
            heatmaps = self._fan(pictures)[-1] + flip(self._fan(flip(pictures))[-1], is_label=True)
            cells, heights = heatmap_peaks(np.asarray((heatmaps / 2).float().cpu().numpy(), np.float32))
            side = _SCALE_FACTOR * scales[part, None, None]
            # a cell's centre, as a share of the square, to the frame; pixel centres at whole numbers
            points[part] = centres[part, None] + ((cells + 0.5) / _HEATMAP_CELLS - 0.5) * side - 0.5
            peaks[part] = heights.mean(axis=1)
        return Shapes(points, 1 - peaks)


def decode_s3fd(outputs: Sequence[torch.Tensor]) -> list[F32]:
    """Candidates [n,5] (x0, y0, x1, y1, score) of each picture, from S3FD's 6 pairs of maps, best first.

    The k-th pair belongs to anchors of side 4 s, s = 2^(k + 2), whose centres lie s apart, the first at s /
    2.
    """
    pictures: list[list[torch.Tensor]] = [[] for _ in range(len(outputs[0]))]
    for level in range(len(outputs) // 2):
        stride = 2.0 ** (level + 2)
        scores = outputs[2 * level].float().softmax(dim=1)[:, 1]
        picture, row, column = torch.nonzero(scores > _LEAST_SCORE, as_tuple=True)
        offsets = outputs[2 * level + 1].float()[picture, :, row, column]
        anchors = torch.stack([column, row], dim=1) * stride + stride / 2
        centres = anchors + offsets[:, :2] * (_VARIANCES[0] * 4 * stride)
        sides = 4 * stride * torch.exp(offsets[:, 2:] * _VARIANCES[1])
        low = centres - sides / 2
        boxes = torch.cat([low, low + sides, scores[picture, row, column, None]], dim=1)
        for index in range(len(pictures)):
            pictures[index].append(boxes[picture == index])
    joined = [torch.cat(levels) for levels in pictures]
    return [boxes[boxes[:, 4].argsort(descending=True, stable=True)].cpu().numpy() for boxes in joined]


def fan_squares(boxes_px: F32) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres [n,2] and scales [n] (side / 200) of the squares that FAN looks at, from S3FD's boxes [n,4]."""
    boxes = boxes_px.astype(np.float64)
    size = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, 2:] - size / 2
    centres[:, 1] -= _UP * size[:, 1]
    return centres, size.sum(axis=1) / _REFERENCE_SCALE


def heatmap_peaks(heatmaps: F32) -> tuple[F32, F32]:
    """Highest cells [n,68,2] (x, y; a quarter towards the higher neighbour), their heights [n,68]."""
    count, points, height, width = heatmaps.shape
    flat = heatmaps.reshape(count, points, -1)
    best = flat.argmax(axis=2)
    y, x = np.divmod(best, width)
    inner = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    face, point = np.ogrid[:count, :points]
    left, right = np.clip(x - 1, 0, None), np.clip(x + 1, None, width - 1)
    above, below = np.clip(y - 1, 0, None), np.clip(y + 1, None, height - 1)
    across = np.sign(heatmaps[face, point, y, right] - heatmaps[face, point, y, left])
    down = np.sign(heatmaps[face, point, below, x] - heatmaps[face, point, above, x])
    cells = np.stack([x, y], axis=2) + 0.25 * np.stack([across, down], axis=2) * inner[..., None]
    heights = np.take_along_axis(flat, best[..., None], axis=2)[..., 0]
    return cells.astype(np.float32), heights


def _load(network: Any, name: str, device: torch.device, allow_unverified: bool) -> Any:
    file = require(name, allow_unverified=allow_unverified)
    try:
        network.load_state_dict(read_weights(file))
    except (RuntimeError, CheckpointError) as error:
        raise WeightsError(f"{file.path} does not hold the weights of {name}: {error}") from error
    return network.to(device).eval().requires_grad_(False)
