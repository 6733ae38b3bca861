"""Spectral features against their original programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import python_speech_features

from syncdiff.pipeline.features.filterbanks import logfbank, mfcc, slaney_mel_bands, wav2lip_mel
from syncdiff.pipeline.records import I16

EMPTY = np.zeros(0, np.int16)


def noise(samples: int, seed: int = 0, level: float = 2000.0) -> I16:
    return (
        np.round(np.random.default_rng(seed).normal(0, level, samples)).clip(-32768, 32767).astype(np.int16)
    )


@pytest.fixture(scope="module")
def original(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "astronaut_sound.npz") as arrays:
        return dict(arrays)


def test_logfbank_equals_av_huberts(original: dict[str, np.ndarray]) -> None:
    got, want = logfbank(original["pcm16"]), original["logfbank_stacked"]
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-4


def test_mel_equals_wav2lips(original: dict[str, np.ndarray]) -> None:
    got, want = wav2lip_mel(original["pcm16"]), original["wav2lip_mel"]
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-3


@pytest.mark.parametrize("samples", [1, 2, 399, 400, 401, 560, 561, 16_000, 200_001])
def test_logfbank_and_mfcc_equal_the_library(samples: int) -> None:
    pcm = noise(samples)
    stacked = logfbank(pcm).reshape(-1, 26)
    want = python_speech_features.logfbank(pcm, samplerate=16_000)
    assert len(stacked) == -(-len(want) // 4) * 4
    assert np.abs(stacked[: len(want)] - want).max() <= 1e-4
    assert not stacked[len(want) :].any()
    assert np.abs(mfcc(pcm) - python_speech_features.mfcc(pcm, samplerate=16_000)).max() <= 1e-4


def test_silence_has_finite_features() -> None:
    silence = np.zeros(5000, np.int16)
    want = np.float32(np.log(np.finfo(np.float64).eps))
    assert np.array_equal(np.unique(logfbank(silence)[:-1]), [want])
    assert np.isfinite(mfcc(silence)).all()
    assert np.array_equal(np.unique(wav2lip_mel(silence)), [-4])


@pytest.mark.parametrize("feature", [logfbank, mfcc, wav2lip_mel])
def test_sound_without_a_sample_is_refused(feature: Any) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        feature(EMPTY)


def test_mel_bands_equal_librosas() -> None:
    filters = pytest.importorskip("librosa.filters")
    for bands, size, low, high in [(80, 800, 55, 7600), (40, 512, 0, 8000), (128, 2048, 300, 900)]:
        want = filters.mel(sr=16_000, n_fft=size, n_mels=bands, fmin=low, fmax=high)
        assert np.abs(slaney_mel_bands(bands, size, low, high) - want).max() <= 1e-7


def test_mel_bands_in_closed_form() -> None:
    """Below 1000 Hz the scale is linear: equal triangles, each of area one."""
    bands = slaney_mel_bands(8, 16_000, 100.0, 1000.0)  # one bin a hertz
    assert np.allclose(bands.sum(1), 1.0, atol=1e-6)
    assert np.array_equal(bands.argmax(1), np.linspace(100, 1000, 10)[1:-1].round())


def test_long_sound_is_the_same_as_its_parts() -> None:
    """Features are made in blocks; where a block ends must not show."""
    pcm = noise(16_000 * 12)
    assert np.array_equal(mfcc(pcm)[300:500], mfcc(pcm[16_000 * 2 :])[100:300])
    assert np.array_equal(wav2lip_mel(pcm)[:, 200:500], wav2lip_mel(pcm[16_000:])[:, 120:420])
