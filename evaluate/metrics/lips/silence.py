"""What the lips do while nothing is heard: they should rest. Needs neither a reference nor trained lips.

    mouth_open_silent    share of the silent frames in which the mouth is open
    silent_lip_mad       how much it moves there: median absolute deviation of the opening from its median

In protocol `silent`, whose videos were driven by silence, every frame is silent, and a mouth that opens
follows the picture it was made from: leakage. KeySync's LipLeak (Bigata et al. 2025, arXiv 2505.00497)
measures the same; the paper's threshold and landmarks could not be checked and its programs do not hold it,
so this is ours, not LipLeak.

`silent_lip_mad` is the formula of THEval's Silent Lip Stability (Quignon et al. 2025, arXiv 2511.04520),
over all silences of at least 300 ms together. Theirs takes eight pairs of MediaPipe's inner lips over the
distance of the outer eye corners, ours three of dlib's over the distance of the eye centres; their program
(Newbyl/THEval) takes deviations from the mean where their paper says median. Values therefore do not compare
with theirs, and carry another name.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.lips.voice_activity import MIN_SILENCE_S, VoiceActivity, long_silences
from syncdiff.pipeline.faces.head_pose import mouth_opening
from syncdiff.pipeline.records import FPS, ClipError

# Of the distance between the eyes, about 63 mm in adults (Dodgson, "Variation and extrema of human
# interpupillary distance", 2004): lips 4 mm apart.
OPEN_SHARE = 0.06


class SilentLips(Metric):
    """voice: finds the silences; None where the videos were driven by silence and every frame is silent."""

    name = "silent_lips"
    about = "mouth that is open, or moves, in silences of 300 ms or more"
    values = (
        Value("mouth_open_silent", "open in silence", "lower", "% of silent frames", 1),
        Value("silent_lip_mad", "lip motion in silence", "lower", "% of eye distance", 2),
    )
    needs_reference = False

    def __init__(self, voice: VoiceActivity | None) -> None:
        self._voice = voice

    def settings(self) -> dict[str, Any]:
        silence = "all frames" if self._voice is None else f"{self._voice.name}, {MIN_SILENCE_S} s or more"
        return {"silence": silence, "open_above": OPEN_SHARE, "points": "61-67, 62-66, 63-65"}

    def measure(self, pair: ClipPair) -> Statistics:
        faces = pair.generated.speaker
        silent = np.ones_like(faces.present)
        if self._voice is not None:
            silent = long_silences(self._voice.speech(pair.sound.sound, len(silent)), FPS)
        if not silent.any():
            raise ClipError(self.name, "no-silence", f"there is no silence of {MIN_SILENCE_S} s")
        seen = silent & faces.present
        if seen.sum() < 2:
            raise ClipError(self.name, "no-face", "the face is in fewer than two silent frames")
        return {"opening": mouth_opening(faces.landmarks_px[seen]), "silent_frames": np.int64(silent.sum())}

    def score(self, statistics: Statistics) -> dict[str, float]:
        opening = statistics["opening"].astype(np.float64)
        return {
            "mouth_open_silent": 100 * float(np.mean(opening > OPEN_SHARE)),
            "silent_lip_mad": 100 * float(np.median(np.abs(opening - np.median(opening)))),
        }
