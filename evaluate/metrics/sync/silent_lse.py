"""SyncNet on videos that were driven by silence: what do their lips follow? For protocol `silent`.

    silent_lse_d, silent_lse_c    lips against silence; the nearer, the more they rest
    source_lse_d                  lips against what the source clip says; far where nothing leaks
    source_lse_c                  confidence that they speak it: near 0 where nothing leaks, high where the
                                  source's mouth shows through although the model heard nothing

Yaman et al. 2025 (arXiv 2511.08613, "Assessing Identity Leakage in Talking Face Generation") score videos of
silent input by LSE-C and LSE-D, too. Against which sound could not be checked, so both are here, under names
of their own. Silence is the same at every offset: what LSE-C is left against it comes from the zeros that the
script pads with, and says nothing.

Distances are those of `lse`, by Wav2Lip's LRS script.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Statistics, Value
from syncdiff.evaluate.metrics.sync.lse import LipSync, SyncDistances, distances_between, sync_distances
from syncdiff.evaluate.metrics.sync.lse_media import jpeg_frames
from syncdiff.pipeline.records import I16, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME


class SilentLse(LipSync):
    """Against digital silence, whatever sound the file holds or lacks."""

    name = "silent_lse"
    about = "SyncNet's distance of the lips from silence"
    values = (
        Value("silent_lse_d", "LSE-D to silence", "lower"),
        Value("silent_lse_c", "LSE-C to silence", "none"),
    )
    needs_sound = False

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "sound": "silence"}

    def distances(self, pair: ClipPair) -> SyncDistances:
        clip = pair.generated
        frames = jpeg_frames(clip.path, fps=self._fps, info=clip.info)
        return distances_between(self._network, frames, _silence(clip.num_frames))

    def score(self, statistics: Statistics) -> dict[str, float]:
        values = super().score(statistics)
        return {"silent_lse_d": values["lse_d"], "silent_lse_c": values["lse_c"]}


class SourceLse(LipSync):
    """Against the sound of the clip that the picture was taken from."""

    name = "source_lse"
    about = "SyncNet's confidence that lips driven by silence speak what the source clip says: leakage"
    values = (
        Value("source_lse_d", "LSE-D to the source", "higher"),
        Value("source_lse_c", "LSE-C to the source", "lower"),
    )
    needs_reference = True
    needs_sound = False

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "sound": "of the reference"}

    def distances(self, pair: ClipPair) -> SyncDistances:
        clip, source = pair.generated, pair.target
        return sync_distances(
            self._network, clip.path, source.path, fps=self._fps, video_info=clip.info, sound_info=source.info
        )

    def score(self, statistics: Statistics) -> dict[str, float]:
        values = super().score(statistics)
        return {"source_lse_d": values["lse_d"], "source_lse_c": values["lse_c"]}


def _silence(frames: int) -> I16:
    """Silence that outlasts so many frames, even where SyncNet's frames are one or two more."""
    return np.zeros(frames * SAMPLES_PER_FRAME + SAMPLE_RATE_HZ, np.int16)
