from __future__ import annotations

import numpy as np
import pytest

from syncdiff.evaluate.metrics.lips.voice_activity import VoiceActivity, long_silences


@pytest.mark.parametrize(("frames", "counts"), [(7, False), (8, True)])
def test_silences_count_from_300_ms_on(frames: int, counts: bool) -> None:
    speech = np.ones(20, bool)
    speech[6 : 6 + frames] = False
    silent = long_silences(speech, 25)
    assert silent.any() == counts
    assert not (silent & speech).any()


def test_silence_at_both_ends_and_everywhere() -> None:
    speech = np.zeros(40, bool)
    assert long_silences(speech, 25).all()
    speech[10:30] = True
    assert np.array_equal(long_silences(speech, 25), ~speech)


def test_frames_of_a_stretch_of_speech_are_those_it_touches() -> None:
    voice = VoiceActivity()
    voice._find = lambda sound, network, sampling_rate: [{"start": 1300, "end": 3840}]  # type: ignore[assignment]
    assert np.flatnonzero(voice.speech(np.zeros(6400, np.int16), 10)).tolist() == [2, 3, 4, 5, 6]
