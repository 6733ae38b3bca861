"""Which of several faces is the one that speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from syncdiff.pipeline.faces.head_pose import mouth_opening
from syncdiff.pipeline.features.av_sync import av_correlation
from syncdiff.pipeline.records import F32, Track

# Among 31 lags the mouth of a listener reaches correlations of 0.1 to 0.3 with somebody else's speech by
# chance; below this no face is taken for the speaker, and faces this close to the best one are not told apart
# by it.
MIN_CORRELATION = 0.3
SAME_CORRELATION = 0.1


@dataclass(frozen=True)
class SpeakerEvidence:
    """Why a face ranks where it does.

    correlation: of mouth opening with loudness at `lag_frames`, None without sound or movement; prominence:
    share of the frame that the face box fills, times a weight that falls from 1 in the frame's middle to 1/2
    at its edge, times the track's share of the longest track. speaks: the correlation says that this face is
    the speaker, or as good a candidate as the best.
    """

    index: int
    correlation: float | None
    lag_frames: int | None
    prominence: float
    speaks: bool


def rank_speakers(
    tracks: Sequence[Track], loudness: F32 | None, size_px: tuple[int, int]
) -> tuple[SpeakerEvidence, ...]:
    """All tracks, the speaker first: by audio-visual correlation, then by size and position.

    `loudness` [frames of the video] float32, None where there is no sound; `size_px` width and height of the
    frame. Faces that correlate equally well (two camera angles of one person, a picture-in-picture) rank by
    prominence.
    """
    longest = max((len(track) for track in tracks), default=1)
    measured: list[tuple[int | None, float | None]] = [(None, None)] * len(tracks)
    if loudness is not None:
        for index, track in enumerate(tracks):
            heard = loudness[track.start_frame : track.start_frame + len(track)]
            measured[index] = av_correlation(mouth_opening(track.landmarks_px)[: len(heard)], heard)
    best = max((r for _, r in measured if r is not None), default=0.0)
    needed = max(MIN_CORRELATION, best - SAME_CORRELATION)
    evidence = [
        SpeakerEvidence(
            index, r, lag, _prominence(track, size_px) * len(track) / longest, r is not None and r >= needed
        )
        for index, (track, (lag, r)) in enumerate(zip(tracks, measured, strict=True))
    ]
    return tuple(sorted(evidence, key=lambda face: (not face.speaks, -face.prominence, face.index)))


def choose_speaker(
    tracks: Sequence[Track], loudness: F32 | None, size_px: tuple[int, int]
) -> tuple[int, ...]:
    """Indices into `tracks`, the speaker first; see `rank_speakers`."""
    return tuple(face.index for face in rank_speakers(tracks, loudness, size_px))


def _prominence(track: Track, size_px: tuple[int, int]) -> float:
    boxes = track.boxes_px
    area = float(np.median((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])))
    centre = np.median((boxes[:, :2] + boxes[:, 2:]) / 2, axis=0)
    off_centre = float(np.clip(np.abs(centre / np.array(size_px) - 0.5).max() * 2, 0, 1))
    return area / (size_px[0] * size_px[1]) * (1 - off_centre / 2)
