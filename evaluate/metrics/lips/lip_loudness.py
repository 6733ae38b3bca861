"""Does the mouth open as far as the sound is loud? THEval's Lip-Sync, on dlib's landmarks.

Quignon et al. 2025 (arXiv 2511.04520): over the frames in which speech is heard, opening of the mouth and
loudness (root mean square of 50 ms of sound) are scaled to 0..1 each by their least and largest value; the
metric is the mean absolute difference. Their program (Newbyl/THEval, Synchronization/lip_sync.py) leaves out
clips in which speech fills less than a tenth, and so does this.

Theirs takes MediaPipe's inner lips and the sound at its own rate, ours dlib's and 16 kHz, so values do not
compare with theirs, and carry another name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.lips.voice_activity import VoiceActivity
from syncdiff.pipeline.faces.head_pose import mouth_opening
from syncdiff.pipeline.records import FPS, I16, SAMPLE_RATE_HZ, ClipError

F64 = NDArray[np.float64]
MIN_SPEECH_SHARE = 0.1
RMS_SAMPLES = SAMPLE_RATE_HZ // 20  # 50 ms, which is also the step


class LipLoudness(Metric):
    name = "lip_loudness"
    about = "mouth opening against loudness, both scaled to 0..1, while speech is heard"
    values = (Value("lip_loudness", "lip-loudness difference", "lower"),)
    needs_reference = False
    needs_sound = True

    def __init__(self, voice: VoiceActivity) -> None:
        self._voice = voice

    def settings(self) -> dict[str, Any]:
        return {"speech": self._voice.name, "points": "61-67, 62-66, 63-65"}

    def measure(self, pair: ClipPair) -> Statistics:
        faces, pcm = pair.generated.speaker, pair.sound.sound
        frames = len(faces.present)
        speech = self._voice.speech(pcm, frames)
        if speech.mean() < MIN_SPEECH_SHARE:
            raise ClipError(self.name, "no-speech", f"speech is heard in {speech.sum()} of {frames} frames")
        spoken = speech & faces.present
        if spoken.sum() < 2:
            raise ClipError(self.name, "no-face", "the face is in fewer than two frames with speech")
        opening = mouth_opening(faces.landmarks_px[spoken])
        return {"opening": opening, "loudness": rms_at_frames(pcm, frames)[spoken]}

    def score(self, statistics: Statistics) -> dict[str, float]:
        opening, loudness = scale_to_one(statistics["opening"]), scale_to_one(statistics["loudness"])
        return {"lip_loudness": float(np.mean(np.abs(opening - loudness)))}


def scale_to_one(values: NDArray[np.floating]) -> F64:
    """Values [n] moved and scaled so that the least is 0 and the largest 1; all 0 where they are equal."""
    exact = values.astype(np.float64)
    return np.asarray((exact - exact.min()) / (exact.max() - exact.min() + 1e-8), np.float64)


def rms_at_frames(pcm16: I16, num_frames: int) -> F64:
    """Root mean square of the sound, in -1..1, at the beginning of each frame, [num_frames].

    As librosa.feature.rms (centred, zeros beyond the ends) in steps of RMS_SAMPLES, and linear between them.
    """
    sound = np.pad(pcm16 / 32768.0, RMS_SAMPLES // 2)
    steps = np.lib.stride_tricks.sliding_window_view(sound, RMS_SAMPLES)[::RMS_SAMPLES]
    rms = np.sqrt((steps**2).mean(axis=1))
    times_s = np.arange(len(rms)) * RMS_SAMPLES / SAMPLE_RATE_HZ
    return np.asarray(np.interp(np.arange(num_frames) / FPS, times_s, rms), np.float64)
