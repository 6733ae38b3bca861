"""Speech-like sound for the sample data set, and mouth openings to go with it.

The sound is made from the opening: its level follows it, voiced harmonics pass through moving formants, and
consonants hiss while the mouth begins to open. It says nothing, but what one sees and hears happens at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, find_peaks, sosfilt

from syncdiff.pipeline.records import FPS, I16, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

F64 = NDArray[np.float64]

# First two formants in Hz of American men (Peterson and Barney 1952, table II), and how far each vowel opens
# the mouth here, from 0 to 1.
VOWELS = {
    "U": (300, 870, 0.3),
    "I": (270, 2290, 0.45),
    "E": (530, 1840, 0.65),
    "O": (570, 840, 0.8),
    "A": (730, 1090, 1.0),
}
CONSONANTS = "BDFGKLMNPSTV"
LEVEL_RANGE_DB = 26.0
"""Between a wide open mouth and the room's noise while it is closed; dB grow evenly with the opening."""


@dataclass(frozen=True)
class Syllable:
    """A moment of greatest opening, in seconds, its vowel, and whether a pause follows."""

    time_s: float
    vowel: str
    ends_phrase: bool


def speak_opening(num_frames: int, rng: np.random.Generator) -> F64:
    """A mouth's opening while speaking, [num_frames], 0 to 1: 3 to 5 syllables a second, with pauses."""
    steps_per_frame = 20
    opening = np.zeros(num_frames * steps_per_frame)
    time_s = np.arange(len(opening)) / (FPS * steps_per_frame)
    at_s = float(rng.uniform(0.1, 0.4))
    while at_s < time_s[-1]:
        for _ in range(rng.integers(2, 7)):
            length_s = float(rng.uniform(0.2, 0.34))
            height = VOWELS[str(rng.choice(list(VOWELS)))][2] * rng.uniform(0.8, 1.0)
            phase = np.clip((time_s - at_s) / length_s, 0, 1) ** 0.8  # opens faster than it closes
            opening = np.maximum(opening, height * np.sin(np.pi * phase) ** 2)
            at_s += length_s * float(rng.uniform(0.75, 1.0))
        at_s += float(rng.uniform(0.25, 0.6))
    return np.asarray(opening.reshape(num_frames, steps_per_frame).mean(axis=1))


def syllables(opening: F64) -> list[Syllable]:
    """The syllables one could read off an opening [T], each with the vowel that opens about as far."""
    peaks, _ = find_peaks(np.concatenate([[0.0], opening, [0.0]]), height=0.12, prominence=0.06)
    times = (peaks - 1 + 0.5) / FPS
    spoken = []
    for i, (peak, time_s) in enumerate(zip(peaks - 1, times, strict=True)):
        vowel = min(VOWELS, key=lambda name: abs(VOWELS[name][2] - opening[peak]))
        spoken.append(Syllable(float(time_s), vowel, i + 1 == len(times) or times[i + 1] - time_s > 0.45))
    return spoken


def transcript(spoken: list[Syllable], rng: np.random.Generator) -> str:
    """Made-up words of one to three syllables, in capitals as in LRS2."""
    words, word = [], ""
    for syllable in spoken:
        word += str(rng.choice(list(CONSONANTS))) + syllable.vowel
        if syllable.ends_phrase or len(word) >= 2 * rng.integers(1, 4):
            words.append(word)
            word = ""
    return " ".join(words)


def synthesise(opening: F64, pitch_hz: float, rng: np.random.Generator) -> I16:
    """Sound int16 [T*640] at 16 kHz whose level follows an opening [T], 0 to 1, without lag."""
    samples = len(opening) * SAMPLES_PER_FRAME
    frame_s = (np.arange(len(opening)) + 0.5) / FPS
    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    fine = np.interp(time_s, frame_s, opening)
    room = rng.standard_normal(samples)
    speaking = np.clip(fine / 0.06, 0, 1)
    carrier = speaking * (_voice(time_s, syllables(opening), pitch_hz, rng) + 1.5 * _hiss(fine, rng))
    carrier += (1 - speaking + 0.02) * room
    power = gaussian_filter1d(carrier**2, 0.006 * SAMPLE_RATE_HZ)
    level = 0.12 * 10 ** (LEVEL_RANGE_DB * (fine - 1) / 20)
    return np.asarray(np.clip(level * carrier / np.sqrt(power + 1e-6), -1, 1) * 32767, np.int16)


def _voice(time_s: F64, spoken: list[Syllable], pitch_hz: float, rng: np.random.Generator) -> F64:
    """Harmonics of a gliding pitch, weighted by resonances that move from vowel to vowel."""
    wobble = (
        1
        + 0.06 * np.sin(2 * np.pi * (0.7 * time_s + rng.uniform()))
        + 0.01 * np.sin(2 * np.pi * 5.2 * time_s)
    )
    pitch = pitch_hz * wobble
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ
    at = [syllable.time_s for syllable in spoken] or [0.0]
    vowels = [VOWELS[syllable.vowel] for syllable in spoken] or [VOWELS["A"]]
    formants = [np.interp(time_s, at, [vowel[i] for vowel in vowels]) for i in (0, 1)] + [
        np.full_like(time_s, 2600.0)
    ]
    voice = np.zeros_like(time_s)
    for harmonic in range(1, int(3800 / pitch_hz)):
        offsets = [
            (harmonic * pitch - formant) / width
            for formant, width in zip(formants, (90, 130, 200), strict=True)
        ]
        gain = sum(weight / (1 + offset**2) for weight, offset in zip((1.0, 0.8, 0.6), offsets, strict=True))
        voice += gain * np.sin(harmonic * phase)
    return voice


def _hiss(fine: F64, rng: np.random.Generator) -> F64:
    """Noise above 1.5 kHz, while the mouth is little open and opening."""
    rising = np.gradient(gaussian_filter1d(fine, 0.01 * SAMPLE_RATE_HZ)) > 0
    amount = gaussian_filter1d(((fine < 0.3) & rising).astype(np.float64), 0.008 * SAMPLE_RATE_HZ)
    high = butter(4, 1500, "highpass", fs=SAMPLE_RATE_HZ, output="sos")
    return np.asarray(amount * sosfilt(high, rng.standard_normal(len(fine))))
