"""Does the mouth open when the sound is loud? Needs no trained network and no reference.

`syncdiff.pipeline.audio.av_correlation` of the generated clip: Pearson's correlation of mouth opening and
loudness at the best lag within ±15 frames, and that lag (positive: the sound comes late). It tells less than
SyncNet about which sound the lips make, and cannot be tuned to by training against SyncNet.
"""

from __future__ import annotations

import numpy as np

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.pipeline.faces.head_pose import mouth_opening
from syncdiff.pipeline.features.av_sync import av_correlation, loudness
from syncdiff.pipeline.records import Bool, ClipError


class AvCorrelation(Metric):
    name = "correlation"
    values = (
        Value("av_correlation", "AV correlation", "higher"),
        Value("av_lag", "AV lag", "zero", "frames", 2),
    )
    needs_reference = False
    needs_sound = True

    def measure(self, pair: ClipPair) -> Statistics:
        faces, pcm = pair.generated.speaker, pair.sound.sound
        start, stop = longest_run(faces.present)
        level = loudness(pcm, len(faces.present))[start:stop]
        lag, r = av_correlation(mouth_opening(faces.landmarks_px[start:stop]), level)
        if lag is None or r is None:
            detail = f"{stop - start} frames in a row, or silence, or a mouth at rest, have no correlation"
            raise ClipError(self.name, "undefined", detail)
        return {"correlation": np.float64(r), "lag_frames": np.int64(lag), "frames": np.int64(stop - start)}

    def score(self, statistics: Statistics) -> dict[str, float]:
        return {
            "av_correlation": float(statistics["correlation"]),
            "av_lag": float(statistics["lag_frames"]),
        }


def longest_run(present: Bool) -> tuple[int, int]:
    """The longest stretch [start, stop) of True; (0, 0) where there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(np.int8)))
    if not len(edges):
        return 0, 0
    starts, stops = edges[::2], edges[1::2]
    best = int(np.argmax(stops - starts))
    return int(starts[best]), int(stops[best])
