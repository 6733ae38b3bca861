from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import skimage.data

from syncdiff.evaluate.clip_pair import Faces
from syncdiff.evaluate.metrics.image.sharpness import Sharpness, cpbd, edge_widths, measure_face
from syncdiff.pipeline.records import ClipError

from ...conftest import MovingFootage, StillFootage, StillPair, pair_of, values_of


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


@pytest.mark.parametrize("with_reference", [True, False])
def test_a_lost_face_is_not_sharp(with_reference: bool):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (160, 200, 3), dtype=np.uint8)] * 10
    true = MovingFootage(np.full(10, 0.2), frames=frames)
    partly = Faces(np.arange(10) < 2, true.faces.landmarks_px)
    made = MovingFootage(np.full(10, 0.2), frames=frames, faces=partly)
    reference = true if with_reference else None
    whole, part = (values_of(Sharpness(), pair_of(clip, reference)) for clip in (true, made))
    assert whole.pop("sharpness_face_lost") == 0
    assert part.pop("sharpness_face_lost") == 80
    assert part == pytest.approx({name: value / 5 for name, value in whole.items()})
    black = values_of(Sharpness(), pair_of(StillFootage(frames[0], 10, face=False), reference))
    assert black == {**dict.fromkeys(whole, 0), "sharpness_face_lost": 100}


def test_a_face_is_not_asked_for_where_the_reference_has_none():
    frames = [np.full((160, 200, 3), 128, np.uint8)] * 10
    half = Faces(np.arange(10) < 5, MovingFootage(np.full(10, 0.2)).faces.landmarks_px)
    clip = MovingFootage(np.full(10, 0.2), frames=frames, faces=half)
    assert values_of(Sharpness(), pair_of(clip, clip))["sharpness_face_lost"] == 0
