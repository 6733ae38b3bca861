from __future__ import annotations

import numpy as np
import pytest

from syncdiff.evaluate.clip_pair import Faces
from syncdiff.evaluate.metrics.sync.av_correlation import AvCorrelation, longest_run
from syncdiff.pipeline.records import ClipError

from ...conftest import MovingFootage, pair_of


def talking(frames: int, shift: int = 0) -> MovingFootage:
    """A mouth that opens with the loudness of noise, whose sound comes `shift` frames late."""
    rng = np.random.default_rng(3)
    syllables = np.repeat(rng.uniform(0.02, 1, frames // 4 + 9), 4)
    opening = np.convolve(syllables, np.hanning(7) / np.hanning(7).sum(), mode="same")
    heard = np.repeat(np.roll(opening, shift)[:frames], 640) * rng.normal(0, 3000, frames * 640)
    return MovingFootage(0.3 * opening[:frames], heard.astype(np.int16))


@pytest.mark.parametrize("shift", [0, 2, 5, 10, -2, -7, -15])
def test_moves_by_exactly_the_shift_of_the_sound(shift: int):
    metric = AvCorrelation()
    scores = metric.score(metric.measure(pair_of(talking(150, shift))))
    assert scores["av_lag"] == shift
    assert scores["av_correlation"] > 0.9


def test_foreign_sound_correlates_less():
    metric, clip = AvCorrelation(), talking(150)
    own = metric.score(metric.measure(pair_of(clip)))["av_correlation"]
    noise = np.random.default_rng(9).normal(0, 3000, 150 * 640) * np.repeat(
        np.random.default_rng(8).random(150), 640
    )
    foreign = MovingFootage(clip.opening, noise.astype(np.int16))
    assert metric.score(metric.measure(pair_of(foreign)))["av_correlation"] < own - 0.3


def test_silence_has_no_correlation():
    clip = MovingFootage(talking(150).opening, np.zeros(150 * 640, np.int16))
    with pytest.raises(ClipError) as error:
        AvCorrelation().measure(pair_of(clip))
    assert (error.value.stage, error.value.reason) == ("correlation", "undefined")


def test_no_face():
    clip = talking(150)
    clip.faces = Faces(np.zeros(150, bool), np.full((150, 68, 2), np.nan, np.float32))
    with pytest.raises(ClipError) as error:
        AvCorrelation().measure(pair_of(clip))
    assert error.value.reason == "undefined"


def test_longest_run():
    assert longest_run(np.array([False, True, True, False, True, True, True])) == (4, 7)
    assert longest_run(np.array([True])) == (0, 1)
    assert longest_run(np.array([False, False])) == (0, 0)
