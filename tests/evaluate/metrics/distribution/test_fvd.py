from __future__ import annotations

import numpy as np
import pytest
import torch

from syncdiff.evaluate.clip_pair import Faces
from syncdiff.evaluate.metrics.distribution.fvd import Fvd, square_around
from syncdiff.pipeline.records import ClipError

from ...conftest import MovingFootage, pair_of


class Colours(torch.nn.Module):
    """Stands for I3D: mean and motion of each colour."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[torch.Size] = []

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        self.seen.append(clip.shape)
        return torch.cat([clip.mean(dim=(2, 3, 4)), clip.diff(dim=2).abs().mean(dim=(2, 3, 4))], dim=1)


def video(seed: int, frames: int = 20, brightness: int = 100) -> MovingFootage:
    rng = np.random.default_rng(seed)
    pictures = [
        np.clip(rng.normal(brightness, 20, 3) + rng.normal(0, 5, (160, 200, 3)), 0, 255).astype(np.uint8)
        for _ in range(frames)
    ]
    return MovingFootage(np.full(frames, 0.1), frames=pictures)


def fvd_of(pairs: list[tuple[MovingFootage, MovingFootage]]) -> dict[str, float]:
    metric = Fvd(Colours())
    return metric.pool([metric.measure(pair_of(*pair)) for pair in pairs])


def test_equal_sets_have_no_distance_and_others_have() -> None:
    reference = [video(seed) for seed in range(6)]
    same = fvd_of([(clip, clip) for clip in reference])
    assert same["fvd"] == pytest.approx(0, abs=1e-9) and same["fvd_videos"] == 6
    near = fvd_of([(video(50 + seed, brightness=110), clip) for seed, clip in enumerate(reference)])
    far = fvd_of([(video(50 + seed, brightness=160), clip) for seed, clip in enumerate(reference)])
    assert 0 < near["fvd"] < far["fvd"]


def test_the_network_gets_16_frames_of_the_face_from_the_first_on() -> None:
    network, clip = Colours(), video(1)
    present = np.ones(20, bool)
    present[:3] = False
    landmarks = clip.faces.landmarks_px.copy()
    landmarks[:3] = np.nan
    clip.faces = Faces(present, landmarks)
    Fvd(network).measure(pair_of(clip, clip))
    assert network.seen == [torch.Size([1, 3, 16, 224, 224])] * 2
    clip.faces = Faces(np.arange(20) >= 5, landmarks)
    with pytest.raises(ClipError, match="no 16 frames"):
        Fvd(network).measure(pair_of(clip, clip))


def test_the_square_holds_all_boxes_and_stays_in_the_picture() -> None:
    boxes = np.array([[10, 20, 50, 60], [20, 10, 60, 50], [np.nan] * 4])
    assert square_around(boxes, (200, 160)).tolist() == [10, 10, 60, 60]
    assert square_around(np.array([[-20.0, 100, 60, 180]]), (200, 160)).tolist() == [0, 80, 80, 160]
    assert square_around(np.array([[-50.0, -50, 300, 300]]), (200, 160)).tolist() == [40, 0, 200, 160]
