from __future__ import annotations

import librosa
import numpy as np
import pytest

from syncdiff.evaluate.metrics.lips.lip_loudness import LipLoudness, rms_at_frames, scale_to_one
from syncdiff.evaluate.metrics.lips.voice_activity import VoiceActivity
from syncdiff.pipeline.records import Bool, ClipError

from ...conftest import MovingFootage, pair_of, values_of


class AlwaysSpeech:
    name = "told"

    def __init__(self, share: float = 1.0) -> None:
        self._share = share

    def speech(self, pcm16: np.ndarray, num_frames: int) -> Bool:
        return np.arange(num_frames) < self._share * num_frames


def noise_as_loud_as(level: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    return (np.repeat(level, 640) * rng.choice([-1.0, 1.0], len(level) * 640)).astype(np.int16)


def test_loudness_is_librosas_between_its_steps() -> None:
    pcm = np.random.default_rng(0).normal(0, 3000, 16_000).astype(np.int16)
    rms = librosa.feature.rms(y=pcm / 32768.0, frame_length=800, hop_length=800)[0]
    times = librosa.frames_to_time(range(len(rms)), sr=16_000, hop_length=800)
    expected = np.interp(np.arange(25) / 25, times, rms)
    assert rms_at_frames(pcm, 25) == pytest.approx(expected, rel=1e-6)


def test_a_mouth_that_follows_the_sound_scores_better_than_one_that_does_not() -> None:
    metric = LipLoudness(AlwaysSpeech())  # type: ignore[arg-type]
    level = np.repeat(np.random.default_rng(2).uniform(0, 1, 20), 10)
    sound = noise_as_loud_as(8000 * level)
    follows = MovingFootage((0.3 * level).astype(np.float32), sound)
    against = MovingFootage((0.3 * (1 - level)).astype(np.float32), sound)
    good, bad = (values_of(metric, pair_of(clip))["lip_loudness"] for clip in (follows, against))
    assert good < 0.1 < 0.4 < bad


def test_closed_form() -> None:
    assert scale_to_one(np.array([2.0, 4.0, 3.0])) == pytest.approx([0, 1, 0.5])
    assert scale_to_one(np.array([5.0, 5.0])) == pytest.approx([0, 0])
    statistics = {"opening": np.array([0.0, 1.0, 0.5]), "loudness": np.array([0.0, 10.0, 10.0])}
    metric = LipLoudness(AlwaysSpeech())  # type: ignore[arg-type]
    assert metric.score(statistics)["lip_loudness"] == pytest.approx(0.5 / 3)


def test_hardly_any_speech_is_a_reason() -> None:
    clip = MovingFootage(np.full(50, 0.1, np.float32), noise_as_loud_as(np.full(50, 100.0)))
    with pytest.raises(ClipError, match="speech is heard in 4 of 50 frames"):
        LipLoudness(AlwaysSpeech(0.08)).measure(pair_of(clip))  # type: ignore[arg-type]


def test_the_detector_hears_nothing_in_silence_and_leaves_threads_alone() -> None:
    import torch

    torch.set_num_threads(2)
    voice = VoiceActivity()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert not voice.speech(np.zeros(32_000, np.int16), 60).any()
    assert voice.name.startswith("silero-vad ")
