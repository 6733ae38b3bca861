from __future__ import annotations

import numpy as np
import pytest

from syncdiff.evaluate.clip_pair import Faces
from syncdiff.evaluate.metrics.lips.silence import OPEN_SHARE, SilentLips
from syncdiff.pipeline.records import Bool, ClipError

from ...conftest import MovingFootage, pair_of, values_of


class SpeechIn:
    """Stands for the voice activity detector: speech is heard in the frames given."""

    name = "told"

    def __init__(self, speech: Bool) -> None:
        self._speech = speech

    def speech(self, pcm16: np.ndarray, num_frames: int) -> Bool:
        return self._speech


def mouth(opening: np.ndarray) -> MovingFootage:
    return MovingFootage(opening.astype(np.float32), np.zeros(len(opening) * 640, np.int16))


def test_closed_form_where_every_frame_is_silent() -> None:
    opening = np.array([0.0, 0.0, 0.02, 0.1, 0.2])
    values = values_of(SilentLips(None), pair_of(mouth(opening)))
    assert values["mouth_open_silent"] == pytest.approx(100 * 2 / 5)
    # median 0.02; deviations 0.02, 0.02, 0, 0.08, 0.18
    assert values["silent_lip_mad"] == pytest.approx(2.0, abs=1e-3)


def test_a_mouth_that_moves_in_silence_leaks_and_one_that_rests_does_not() -> None:
    time = np.arange(50)
    talking = 0.15 + 0.15 * np.sin(time)
    leak, rest = (values_of(SilentLips(None), pair_of(mouth(o))) for o in (talking, np.full(50, 0.01)))
    assert leak["mouth_open_silent"] > 60 and leak["silent_lip_mad"] > 5
    assert rest["mouth_open_silent"] == 0 and rest["silent_lip_mad"] == pytest.approx(0, abs=1e-3)


def test_frames_with_speech_and_short_pauses_do_not_count() -> None:
    speech = np.ones(40, bool)
    speech[5:12] = False  # 7 frames: 280 ms
    speech[20:28] = False  # 8 frames: 320 ms
    opening = np.full(40, 0.3)
    opening[20:24] = 0.0
    pair = pair_of(mouth(opening))
    metric = SilentLips(SpeechIn(speech))  # type: ignore[arg-type]
    assert values_of(metric, pair)["mouth_open_silent"] == pytest.approx(50)
    assert metric.measure(pair)["silent_frames"] == 8
    assert metric.settings()["open_above"] == OPEN_SHARE


def test_no_silence_and_no_face_are_reasons() -> None:
    clip = mouth(np.full(30, 0.1))
    with pytest.raises(ClipError, match=r"no silence of 0\.3 s"):
        SilentLips(SpeechIn(np.ones(30, bool))).measure(pair_of(clip))  # type: ignore[arg-type]
    clip.faces = Faces(np.zeros(30, bool), np.full((30, 68, 2), np.nan, np.float32))
    with pytest.raises(ClipError) as error:
        SilentLips(None).measure(pair_of(clip))
    assert error.value.reason == "no-face"


def test_videos_driven_by_silence_need_no_sound() -> None:
    clip = MovingFootage(np.full(10, 0.2, np.float32), None)
    assert values_of(SilentLips(None), pair_of(clip))["mouth_open_silent"] == 100
    with pytest.raises(ClipError, match="no sound"):
        SilentLips(SpeechIn(np.zeros(10, bool))).measure(pair_of(clip))  # type: ignore[arg-type]
