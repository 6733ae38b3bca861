"""Contact sheets: which moments they show, what is drawn over them, how large their pictures are."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from syncdiff.pipeline.report.contact_sheets import (
    MASK_RGB,
    choose_moments,
    data_address,
    draw_over,
    lag_text,
)

SIZE = 64


def test_moments_are_even_in_time_with_the_widest_mouth_and_a_gap_among_them() -> None:
    opening = np.zeros(120, np.float32)
    detected = np.ones(120, bool)
    assert [t for t, _ in choose_moments(opening, detected)][1:] == [30, 50, 70, 90, 110]
    opening[37] = 1
    detected[64:71] = False
    assert choose_moments(opening, detected)[1] == (37, "mouth widest")
    assert choose_moments(opening, detected)[3] == (67, "interpolated")
    assert [t for t, _ in choose_moments(opening[:3], detected[:3])] == [0, 1, 2]
    assert choose_moments(np.full(1, np.nan, np.float32), np.zeros(1, bool)) == [
        (0, "mouth widest, interpolated")
    ]


def test_mask_and_landmarks_are_drawn_where_they_are() -> None:
    crop = np.zeros((SIZE, SIZE, 3), np.uint8)
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[40:, 16:48] = True
    points = np.full((68, 2), 8.0, np.float32)
    drawn = draw_over(crop, points, mask)
    scale = len(drawn) // SIZE
    assert drawn[50 * scale, 32 * scale].tolist() == pytest.approx([round(0.18 * c) for c in MASK_RGB], abs=1)
    assert drawn[20 * scale, 32 * scale].tolist() == [0, 0, 0]
    assert drawn[int(8.5 * scale), int(8.5 * scale)].max() > 150
    assert draw_over(crop, points * 1e6, mask).shape == drawn.shape


def test_pictures_keep_to_their_size() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    sizes = [len(base64.b64decode(data_address(noise, most).split(",")[1])) for most in (100_000, 12_000, 1)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[1] <= 12_000


def test_lags_are_said_in_words() -> None:
    assert lag_text(-3) == "sound 3 frames (120 ms) early"
    assert lag_text(1) == "sound 1 frame (40 ms) late"
    assert lag_text(1, brief=True) == "sound 1 frame late"
    assert lag_text(0).startswith("0")
    assert lag_text(None) == "unknown"
