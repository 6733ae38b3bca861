"""Loudness in closed form, lag against known shifts, cuts in pauses."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import dlib
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from syncdiff.pipeline.features.av_sync import av_correlation, loudness, quiet_cuts
from syncdiff.pipeline.media.read import open_video, read_audio
from syncdiff.pipeline.records import F32, I16, SAMPLES_PER_FRAME

EMPTY = np.zeros(0, np.int16)


def noise(samples: int, seed: int = 0, level: float = 2000.0) -> I16:
    return (
        np.round(np.random.default_rng(seed).normal(0, level, samples)).clip(-32768, 32767).astype(np.int16)
    )


def speech_like(frames: int, seed: int) -> tuple[I16, F32]:
    """Noise whose level follows a smooth random envelope, and that envelope [frames], changing 2 to 6 times a
    second."""
    rng = np.random.default_rng(seed)
    low_pass = scipy.signal.butter(2, [1.0, 6.0], "bandpass", fs=25, output="sos")
    opening = scipy.signal.sosfiltfilt(low_pass, rng.normal(size=frames + 50))[25:-25]
    opening = (opening - opening.min()) / np.ptp(opening)
    level = np.repeat(10 ** (2 * opening - 1), SAMPLES_PER_FRAME)
    pcm = (rng.normal(0, 1000, len(level)) * level).clip(-32768, 32767).astype(np.int16)
    return pcm, opening.astype(np.float32)


def test_loudness_of_a_tone() -> None:
    """A sine at full scale has -3 dB; outside the band nothing is left of it."""
    time_s = np.arange(32_000) / 16_000
    for hertz, want in [(2000, -3.01), (1500, -3.01), (200, -100.0), (6000, -100.0)]:
        tone = np.round(32767 * np.sin(2 * np.pi * hertz * time_s)).astype(np.int16)
        inner = loudness(tone, 50)[2:-2]
        assert inner == pytest.approx(want, abs=0.05) if want > -10 else inner.max() < -70


def test_loudness_scales_in_decibels() -> None:
    quiet, loud = noise(32_000, level=300), noise(32_000, level=3000)
    assert loudness(loud, 50) - loudness(quiet, 50) == pytest.approx(20, abs=0.2)


def test_loudness_where_there_is_no_sound() -> None:
    assert np.array_equal(loudness(EMPTY, 3), np.full(3, -100, np.float32))
    level = loudness(noise(6400), 20)
    assert (level[:10] > -60).all()
    assert (level[11:] == -100).all()
    assert len(loudness(EMPTY, 0)) == 0


def test_loudness_is_local() -> None:
    """A click is heard in its own frame most, and beyond its neighbours not at all."""
    pcm = np.zeros(640 * 20, np.int16)
    pcm[640 * 10 + 320 : 640 * 10 + 340] = noise(20, level=9000)
    level = loudness(pcm, 20)
    assert level.argmax() == 10
    assert (np.delete(level, [9, 10, 11]) == -100).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.integers(-15, 15))
def test_lag_is_the_shift(seed: int, shift: int) -> None:
    """Sound later by k frames means a lag larger by exactly k."""
    pcm, opening = speech_like(150, seed)
    margin = 20
    sound = pcm[(margin - shift) * SAMPLES_PER_FRAME : (150 - margin - shift) * SAMPLES_PER_FRAME]
    lag, r = av_correlation(opening[margin:-margin], loudness(sound, 150 - 2 * margin))
    assert lag == shift
    assert r is not None
    assert r > 0.8


def test_correlation_knows_its_sign() -> None:
    pcm, opening = speech_like(150, 3)
    _, aligned = av_correlation(opening, loudness(pcm, 150), max_lag_frames=0)
    _, inverted = av_correlation(-opening, loudness(pcm, 150), max_lag_frames=0)
    assert aligned is not None
    assert inverted == pytest.approx(-aligned, abs=1e-6)


@given(scale=st.floats(0.01, 100), offset=st.floats(-10, 10))
@settings(max_examples=20, deadline=None)
def test_correlation_does_not_depend_on_units(scale: float, offset: float) -> None:
    pcm, opening = speech_like(100, 4)
    level = loudness(pcm, 100)
    lag, r = av_correlation(opening, level)
    scaled_lag, scaled_r = av_correlation((opening * scale + offset).astype(np.float32), level)
    assert scaled_lag == lag
    assert scaled_r == pytest.approx(r, abs=1e-3)


@pytest.mark.parametrize("what", ["silence", "still mouth", "short"])
def test_undefined_lag(what: str) -> None:
    pcm, opening = speech_like(100, 5)
    frames = 39 if what == "short" else 100
    level = loudness(np.zeros_like(pcm) if what == "silence" else pcm, frames)
    mouth = np.full(100, 0.3, np.float32) if what == "still mouth" else opening[:frames]
    assert av_correlation(mouth, level) == (None, None)
    assert av_correlation(opening[:40], loudness(pcm, 40)) != (None, None)


def test_lag_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="two arrays"):
        av_correlation(np.zeros(50, np.float32), np.zeros(49, np.float32))
    with pytest.raises(ValueError, match="finite"):
        av_correlation(np.full(50, np.nan, np.float32), np.zeros(50, np.float32))


def mouth_opening(path: Path) -> F32:
    """Distance of the inner lips over that of the eyes, by dlib's landmarks, frame by frame."""
    package = importlib.util.find_spec("face_recognition_models")
    assert package is not None and package.submodule_search_locations is not None
    models = Path(next(iter(package.submodule_search_locations))) / "models"
    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(models / "shape_predictor_68_face_landmarks.dat"))
    opening, box = [], None
    for frame in np.concatenate(list(open_video(path).chunks())):
        found = detector(frame) if len(opening) % 10 == 0 else []
        box = found[0] if len(found) else box
        assert box is not None
        shape = predictor(frame, box)
        points = np.array([(shape.part(k).x, shape.part(k).y) for k in range(68)], np.float64)
        lips = np.linalg.norm(points[61:64] - points[67:64:-1], axis=1).mean()
        opening.append(lips / np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0)))
    return np.array(opening, np.float32)


def test_lag_of_a_clip_with_a_published_offset(realdata: Path) -> None:
    """SyncNet's demo clip: published offset 3, that is, the sound comes three frames early."""
    path = realdata / "syncnet_example.avi"
    opening, pcm = mouth_opening(path), read_audio(path)
    assert pcm is not None
    lag, r = av_correlation(opening, loudness(pcm, len(opening)))
    assert lag in (-4, -3, -2)
    assert r is not None
    assert r > 0.7
    shifted = np.concatenate([np.zeros(5 * SAMPLES_PER_FRAME, np.int16), pcm])
    assert av_correlation(opening, loudness(shifted, len(opening)))[0] == lag + 5


@settings(max_examples=60, deadline=None)
@given(frames=st.integers(0, 3000), longest=st.integers(1, 700), seed=st.integers(0, 3))
def test_cuts_partition_the_clip(frames: int, longest: int, seed: int) -> None:
    parts = quiet_cuts(noise(frames * 64, seed), frames, longest)
    edges = [0, *(stop for _, stop in parts)]
    assert parts == list(itertools.pairwise(edges))
    assert edges[-1] == frames
    lengths = np.diff(edges)
    assert (lengths <= longest).all()
    assert (lengths[:-1] >= max(1, longest // 2)).all()
    if len(parts) > 1:
        assert lengths[-1] >= max(1, longest // 4)


def test_cuts_lie_in_pauses() -> None:
    pcm = noise(1000 * SAMPLES_PER_FRAME)
    for pause in (220, 431, 700):
        pcm[(pause - 4) * SAMPLES_PER_FRAME : (pause + 4) * SAMPLES_PER_FRAME] //= 100
    cuts = [stop for _, stop in quiet_cuts(pcm, 1000, 300)][:-1]
    assert len(cuts) == 3
    assert np.abs(np.array(cuts) - [220, 431, 700]).max() <= 2


def test_cuts_without_sound_are_as_long_as_allowed() -> None:
    assert quiet_cuts(EMPTY, 1000, 300) == [(0, 300), (300, 600), (600, 900), (900, 1000)]
    assert quiet_cuts(EMPTY, 620, 300) == [(0, 300), (300, 545), (545, 620)]
    with pytest.raises(ValueError, match="max_frames"):
        quiet_cuts(EMPTY, 10, 0)


def test_loudness_of_long_sound_is_that_of_its_parts() -> None:
    """It is made in blocks; where a block ends must not show."""
    pcm = noise(16_000 * 12)
    assert np.array_equal(loudness(pcm, 300)[100:280], loudness(pcm[640 * 50 :], 250)[50:230])
