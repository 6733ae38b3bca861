"""Loudness of sound, its lag to the mouth, and quiet places to cut.

All functions take `pcm16`, int16 [S], mono at 16 kHz. Nothing here needs torch.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.signal

from syncdiff.pipeline.features.filterbanks import BLOCK_FRAMES, F64, blocks
from syncdiff.pipeline.records import F32, I16, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

LOUDNESS_BAND_HZ = (1000.0, 3000.0)
LOUDNESS_FLOOR_DB = -100.0
AV_RANGE_DB = 50.0
AV_MIN_OVERLAP_FRAMES = 25  # a second: two to seven syllables


def loudness(pcm16: I16, num_frames: int) -> F32:
    """Level of the sound at each video frame, [num_frames], in dB relative to full scale, at least -100.

    The root mean square from 1 to 3 kHz, under a Hann window of 80 ms around the middle of the frame. That
    band, of the second and third formants, follows the mouth's opening best (Chandrasekaran et al. 2009,
    "The natural statistics of audiovisual speech", PLoS Comput. Biol. 5(7)); on real clips it finds the lag
    more often than the whole band, or the speech band from 300 to 3400 Hz, does. Where the sound is over,
    it is silent.
    """
    size = 2 * SAMPLES_PER_FRAME
    margin = SAMPLES_PER_FRAME // 2
    needed = max(num_frames, 1) * SAMPLES_PER_FRAME + margin
    inside = pcm16[:needed] / 32768.0
    padded = np.pad(inside, (margin, needed - len(inside)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::SAMPLES_PER_FRAME][:num_frames]
    window = scipy.signal.get_window("hann", size)
    bins_hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    band = (bins_hz >= LOUDNESS_BAND_HZ[0]) & (bins_hz <= LOUDNESS_BAND_HZ[1])
    power = np.zeros(num_frames)
    for k, block in enumerate(blocks(frames)):
        spectrum = np.abs(scipy.fft.rfft(block * window, axis=1)[:, band])
        power[k * BLOCK_FRAMES : k * BLOCK_FRAMES + len(block)] = (spectrum**2).sum(1)
    power *= 2 / (size * np.sum(window**2))  # Parseval; 2 for the negative frequencies
    level_db = np.maximum(10 * np.log10(np.maximum(power, 1e-30)), LOUDNESS_FLOOR_DB)
    return np.asarray(level_db, dtype=np.float32)


def av_correlation(
    mouth_opening: F32, loudness_db: F32, max_lag_frames: int = 15
) -> tuple[int | None, float | None]:
    """By how many frames the sound trails the mouth, and how well the two agree there: (lag, r).

    mouth_opening [T] in any unit, loudness_db [T] as `loudness` gives it. lag = time of the sound minus
    time of the picture: -3 means that the sound comes three frames early. For each lag within
    ±max_lag_frames, r is Pearson's correlation of mouth_opening[t] with loudness_db[t + lag] over the
    frames that both have; the lag with the largest r is returned, the smaller one in size where two are
    equal.

    Both are smoothed by (1, 4, 6, 4, 1)/16, because landmarks jitter from frame to frame while syllables
    come at 2 to 7 a second. They are not detrended: pauses, which a detrending weakens, tell most about the
    lag. Levels more than 50 dB below the loudest frame count as that much, so that the depth of a digital
    silence has no weight.

    (None, None) where it is undefined: silence, a mouth that never moves, or fewer than 25 frames in common
    at the largest lag. Raises ValueError for inputs of different length or with values that are not finite.
    """
    if mouth_opening.shape != loudness_db.shape or mouth_opening.ndim != 1:
        raise ValueError(f"expected two arrays [T], got {mouth_opening.shape} and {loudness_db.shape}")
    if not (np.isfinite(mouth_opening).all() and np.isfinite(loudness_db).all()):
        raise ValueError("mouth opening and loudness must be finite")
    frames = len(mouth_opening)
    if frames < AV_MIN_OVERLAP_FRAMES + max_lag_frames:
        return None, None
    opening = _smooth(mouth_opening.astype(np.float64))
    level = _smooth(np.maximum(loudness_db, loudness_db.max() - AV_RANGE_DB).astype(np.float64))
    best_lag, best_r = None, None
    for lag in sorted(range(-max_lag_frames, max_lag_frames + 1), key=abs):
        r = _pearson(opening[max(0, -lag) : frames - max(0, lag)], level[max(0, lag) : frames - max(0, -lag)])
        if r is not None and (best_r is None or r > best_r + 1e-12):
            best_lag, best_r = lag, r
    return best_lag, best_r


def quiet_cuts(pcm16: I16, num_frames: int, max_frames: int) -> list[tuple[int, int]]:
    """Split [0, num_frames) into parts [start, stop) of at most max_frames, at the quietest moments.

    From each part's start, the cut is sought between half of max_frames and all of it, but no later than
    leaves a quarter of max_frames for the rest; so the last part has at least a quarter of max_frames, all
    others at least half. The quietest cut is the one with the least energy in the 200 ms around it; of
    equal ones, the latest.
    """
    if max_frames < 1:
        raise ValueError(f"max_frames must be at least 1, got {max_frames}")
    around = 2 * SAMPLES_PER_FRAME + SAMPLES_PER_FRAME // 2
    energy = np.concatenate([[0.0], np.cumsum(pcm16.astype(np.float64) ** 2)])

    def energy_around(frame: int) -> float:
        middle = frame * SAMPLES_PER_FRAME
        first, last = np.clip([middle - around, middle + around], 0, len(pcm16))
        return float(energy[last] - energy[first])

    parts, start = [], 0
    while num_frames - start > max_frames:
        earliest = start + max(1, max_frames // 2)
        latest = min(start + max_frames, num_frames - max(1, max_frames // 4))
        cut = min(range(latest, earliest - 1, -1), key=energy_around)
        parts.append((start, cut))
        start = cut
    return [*parts, (start, num_frames)] if num_frames else []


def _smooth(values: F64) -> F64:
    padded = np.pad(values, 2, mode="edge")
    return np.convolve(padded, np.array([1, 4, 6, 4, 1]) / 16, mode="valid")


def _pearson(a: F64, b: F64) -> float | None:
    """Pearson's correlation, None where one of them does not vary."""
    a, b = a - a.mean(), b - b.mean()
    spread_a, spread_b = np.sqrt(a @ a), np.sqrt(b @ b)
    if min(spread_a, spread_b) < 1e-6:
        return None
    return float(a @ b / (spread_a * spread_b))
