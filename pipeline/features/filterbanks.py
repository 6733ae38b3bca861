"""Spectral features of sound: AV-HuBERT's filter banks, SyncNet's MFCC, Wav2Lip's mel.

All functions take `pcm16`, int16 [S], mono at 16 kHz. Nothing here needs torch.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from syncdiff.pipeline.records import F32, I16, SAMPLE_RATE_HZ

F64 = NDArray[np.float64]
LOGFBANK_STACK = 4
# Spectra are made block by block: a block stays in the cache, and long sound needs no more memory than short.
BLOCK_FRAMES = 256


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
    spectra = [np.abs(scipy.fft.rfft(block * window, axis=1)) @ bands for block in blocks(frames)]
    level_db = 20 * np.log10(np.maximum(np.concatenate(spectra), 1e-5)) - 20
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
    for k, block in enumerate(blocks(frames)):
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


def blocks(frames: F64) -> list[F64]:
    """Frames [T,n] cut into stretches of at most BLOCK_FRAMES."""
    return [frames[start : start + BLOCK_FRAMES] for start in range(0, len(frames), BLOCK_FRAMES)]


def _preemphasis(signal: F64) -> F64:
    """x[n] - 0.97 x[n-1], the first sample as it is. Raises ValueError for a signal without a sample."""
    if signal.ndim != 1 or len(signal) == 0:
        raise ValueError(f"expected sound [S] with at least one sample, got shape {signal.shape}")
    return np.concatenate([signal[:1], signal[1:] - 0.97 * signal[:-1]])
