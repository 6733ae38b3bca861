"""What is computed from sound alone: features, loudness and its lag to the mouth, quiet places to cut, FLAC.

All functions take `pcm16`, int16 [S], mono at 16 kHz. Nothing here needs torch.
"""

from __future__ import annotations

import io

import numpy as np
import scipy.fft
import scipy.signal
import soundfile
from numpy.typing import NDArray

from syncdiff.pipeline.records import F32, I16, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

F64 = NDArray[np.float64]

# Spectra are made block by block: a block stays in the cache, and long sound needs no more memory than short.
BLOCK_FRAMES = 256
LOGFBANK_STACK = 4
LOUDNESS_BAND_HZ = (1000.0, 3000.0)
LOUDNESS_FLOOR_DB = -100.0
AV_RANGE_DB = 50.0
AV_MIN_OVERLAP_FRAMES = 25


def logfbank(pcm16: I16) -> F32:
    """AV-HuBERT's audio input [T,104] at 25 Hz: four steps of 26 log filter-bank energies to a row.

    As `python_speech_features.logfbank` with its defaults (26 bands, 25 ms windows every 10 ms, raw int16),
    made float32, zero rows appended until the count divides by 4, then stacked (AV-HuBERT,
    hubert_dataset.py). Raises ValueError for sound without a sample.
    """
    energies, _ = _filterbank_energies(pcm16)
    steps = np.log(energies).astype(np.float32)
    steps = np.pad(steps, ((0, -len(steps) % LOGFBANK_STACK), (0, 0)))
    return np.asarray(steps.reshape(-1, LOGFBANK_STACK * 26), dtype=np.float32)


def mfcc(pcm16: I16) -> F32:
    """SyncNet's audio input [M,13] at 100 Hz: `python_speech_features.mfcc` with its defaults.

    Raises ValueError for sound without a sample.
    """
    energies, total = _filterbank_energies(pcm16)
    cepstra = scipy.fft.dct(np.log(energies), type=2, axis=1, norm="ortho")[:, :13]
    cepstra *= 1 + 11 * np.sin(np.pi * np.arange(13) / 22)  # liftering with L = 22
    cepstra[:, 0] = np.log(total)
    return np.asarray(cepstra, dtype=np.float32)


def wav2lip_mel(pcm16: I16) -> F32:
    """Wav2Lip's mel spectrogram [80,M] at 80 Hz, values in [-4,4] (Wav2Lip, audio.py and hparams.py).

    Pre-emphasis 0.97, STFT 800/200/800 (Hann, centred, zeros at both ends), 80 Slaney bands from 55 to 7600
    Hz, decibels with a floor of -100, minus 20, scaled and clipped. A video frame i uses the 16 steps from
    floor(80 i / 25). Raises ValueError for sound without a sample.
    """
    emphasised = np.pad(_preemphasis(pcm16 / 32768.0), 400)
    frames = np.lib.stride_tricks.sliding_window_view(emphasised, 800)[::200]
    window = scipy.signal.get_window("hann", 800)
    bands = slaney_mel_bands(80, 800, 55.0, 7600.0).T
    blocks = [np.abs(scipy.fft.rfft(block * window, axis=1)) @ bands for block in _blocks(frames)]
    level_db = 20 * np.log10(np.maximum(np.concatenate(blocks), 1e-5)) - 20
    return np.ascontiguousarray(np.clip(8 * (level_db + 100) / 100 - 4, -4, 4).T, dtype=np.float32)


def slaney_mel_bands(num_bands: int, fft_size: int, low_hz: float, high_hz: float) -> F64:
    """Triangular filters of equal area [num_bands, fft_size//2+1], on the mel scale of Slaney's Auditory
    Toolbox.

    (Apple technical report 45, 1993.) The scale is linear up to 1000 Hz with 15 mel, and logarithmic above
    it with 27 mel from 1000 to 6400 Hz.
    """
    step_hz, corner_hz, corner_mel, log_step = 200.0 / 3, 1000.0, 15.0, np.log(6.4) / 27

    def to_mel(hz: float) -> float:
        return hz / step_hz if hz < corner_hz else corner_mel + float(np.log(hz / corner_hz)) / log_step

    mel = np.linspace(to_mel(low_hz), to_mel(high_hz), num_bands + 2)
    log_part = corner_hz * np.exp(log_step * np.maximum(mel - corner_mel, 0))
    edges_hz = np.where(mel < corner_mel, mel * step_hz, log_part)
    bins_hz = np.fft.rfftfreq(fft_size, 1 / SAMPLE_RATE_HZ)
    low, centre, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    triangles = np.minimum((bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre))
    return np.asarray(np.maximum(triangles, 0) * 2 / (high - low), dtype=np.float64)


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
    for k, block in enumerate(_blocks(frames)):
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


def encode_flac(pcm16: I16) -> bytes:
    """The sound as a FLAC file: lossless, and the same bytes for the same sound and library.

    Raises ValueError for sound without a sample, which FLAC cannot hold.
    """
    _require_samples(pcm16)
    file = io.BytesIO()
    soundfile.write(file, pcm16, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def decode_flac(data: bytes) -> I16:
    """The sound int16 [S] of a FLAC file made by `encode_flac`. Raises ValueError if it is of another
    kind."""
    pcm, rate_hz = soundfile.read(io.BytesIO(data), dtype="int16")
    if pcm.ndim != 1 or rate_hz != SAMPLE_RATE_HZ:
        raise ValueError(f"expected mono sound at {SAMPLE_RATE_HZ} Hz, got {pcm.shape} at {rate_hz} Hz")
    return np.asarray(pcm, dtype=np.int16)


def _filterbank_energies(pcm16: I16) -> tuple[F64, F64]:
    """Energies [M,26] and total energy [M] of 25 ms windows every 10 ms, as python_speech_features.fbank
    has them.

    The last window is filled with zeros; an energy of exactly zero becomes the float64 epsilon. (Its own
    program gives the same values but takes about twice as long, and its index arrays for half an hour fill
    1 GB.)
    """
    signal = _preemphasis(pcm16.astype(np.float64))
    count = 1 + max(0, -(-(len(signal) - 400) // 160))
    signal = np.pad(signal, (0, (count - 1) * 160 + 400 - len(signal)))
    frames = np.lib.stride_tricks.sliding_window_view(signal, 400)[::160]
    bands = _htk_mel_bands(26, 512).T
    energies, totals = np.empty((count, 26)), np.empty(count)
    for k, block in enumerate(_blocks(frames)):
        spectrum = scipy.fft.rfft(block, 512, axis=1)
        power = (spectrum.real**2 + spectrum.imag**2) / 512
        here = slice(k * BLOCK_FRAMES, k * BLOCK_FRAMES + len(block))
        energies[here] = power @ bands
        totals[here] = power.sum(1)
    epsilon = np.finfo(np.float64).eps
    return np.where(energies == 0, epsilon, energies), np.where(totals == 0, epsilon, totals)


def _htk_mel_bands(num_bands: int, fft_size: int) -> F64:
    """Triangular filters of height one [num_bands, fft_size//2+1], their edges rounded down to whole bins.

    HTK's mel scale, 2595 log10(1 + f/700), as python_speech_features.get_filterbanks uses it.
    """
    mel = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700), num_bands + 2)
    edges = np.floor((fft_size + 1) * 700 * (10 ** (mel / 2595) - 1) / SAMPLE_RATE_HZ)
    bins = np.arange(fft_size // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.where(bins < centre, (bins - low) / (centre - low), (high - bins) / (high - centre))
    return np.asarray(np.maximum(triangles, 0), dtype=np.float64)


def _blocks(frames: F64) -> list[F64]:
    return [frames[start : start + BLOCK_FRAMES] for start in range(0, len(frames), BLOCK_FRAMES)]


def _preemphasis(signal: F64) -> F64:
    """x[n] - 0.97 x[n-1], the first sample as it is. Raises ValueError for a signal without a sample."""
    _require_samples(signal)
    return np.concatenate([signal[:1], signal[1:] - 0.97 * signal[:-1]])


def _require_samples(signal: NDArray[np.generic]) -> None:
    if signal.ndim != 1 or len(signal) == 0:
        raise ValueError(f"expected sound [S] with at least one sample, got shape {signal.shape}")


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
