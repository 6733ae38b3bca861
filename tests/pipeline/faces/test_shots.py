"""Shot cuts: found between unlike pictures, not in motion, fades or flashes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from syncdiff.pipeline.faces.shots import ShotCuts
from syncdiff.pipeline.media.read import open_video
from syncdiff.pipeline.records import U8


@pytest.fixture(scope="module")
def still() -> U8:
    return np.asarray(cv2.resize(data.astronaut(), (320, 240)), np.uint8)


@pytest.fixture(scope="module")
def other() -> U8:
    return np.asarray(cv2.resize(data.coffee(), (320, 240)), np.uint8)


def cuts(frames: Iterable[U8]) -> tuple[int, ...]:
    shots = ShotCuts()
    for frame in frames:
        shots.add(frame)
    return shots.cuts()


def test_a_cut_is_found_and_suspected_at_once(still: U8, other: U8) -> None:
    shots = ShotCuts()
    suspected = [shots.add(frame) for frame in [still] * 10 + [other] * 10 + [still] * 10]
    assert shots.cuts() == (10, 20)
    assert [index for index, yes in enumerate(suspected) if yes] == [10, 20]


def test_nothing_of_no_frames_and_of_one(still: U8) -> None:
    assert cuts([]) == () == cuts([still])


@pytest.mark.parametrize("frames", [1, 2])
def test_a_flash_is_no_cut(still: U8, frames: int) -> None:
    bright = np.clip(still.astype(int) + 130, 0, 255).astype(np.uint8)
    assert cuts([still] * 10 + [bright] * frames + [still] * 10) == ()


def test_a_shot_of_three_frames_is_a_shot(still: U8, other: U8) -> None:
    assert cuts([still] * 10 + [other] * 3 + [still] * 10) == (10, 13)


def test_motion_is_no_cut(still: U8) -> None:
    pan = [np.roll(still, -14 * max(0, min(step, 20) - 5), axis=1) for step in range(30)]
    assert cuts(pan) == ()
    rng = np.random.default_rng(0)
    shake = [np.roll(still, rng.integers(-10, 11, 2), axis=(0, 1)) for _ in range(60)]
    assert cuts(shake) == ()


def test_a_fade_is_no_cut(still: U8) -> None:
    assert cuts([(still * min(1.0, step / 12)).astype(np.uint8) for step in range(40)]) == ()


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (1080, 1920)])
def test_any_size_of_frame(size: tuple[int, int]) -> None:
    dark, light = np.full((*size, 3), 20, np.uint8), np.full((*size, 3), 200, np.uint8)
    assert cuts([dark] * 5 + [light] * 5) == (5,)


def test_cuts_between_real_clips_and_none_within(realdata: Path) -> None:
    names = ["grid_bbaf2n.mpg", "grid_s2_swwp2s.mpg", "vox2_00002.mp4", "film_phone.mp4", "vox2_00086.mp4"]
    joined: list[U8] = []
    expected: list[int] = []
    for name in names:
        expected.append(len(joined))
        frames = next(iter(open_video(realdata / name).chunks()))[:40]
        joined += [np.asarray(cv2.resize(frame, (320, 240)), np.uint8) for frame in frames]
    assert cuts(joined) == tuple(expected[1:])
