"""When somebody speaks: Silero VAD, for metrics of lips in speech and in silence.

The network comes with the package silero-vad (snakers4/silero-vad, MIT), with the thresholds of its
`get_speech_timestamps`: speech begins at a probability of 0.5 and ends below 0.35; shorter than 250 ms is
none, pauses shorter than 100 ms belong to it, and 30 ms are added on both sides.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch

from syncdiff.pipeline.records import I16, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, Bool
from syncdiff.pipeline.store.manifest import package_version

MIN_SILENCE_S = 0.3  # THEval's: what is shorter is a pause within speech


class VoiceActivity:
    """name: what reports call it."""

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        from silero_vad import get_speech_timestamps, load_silero_vad

        torch.set_num_threads(threads)  # importing it sets one thread for the whole process
        self.name = f"silero-vad {package_version('silero-vad')}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its file is TorchScript, which PyTorch will drop
            self._network = load_silero_vad()
        self._find = get_speech_timestamps

    def speech(self, pcm16: I16, num_frames: int) -> Bool:
        """Frames [num_frames] in which speech is heard, of sound int16 [S] at 16 kHz.

        The frames of a stretch of speech are those from its first to its last, both counted, as in THEval's
        programs (Newbyl/THEval, Synchronization). Beyond the sound's end there is no speech.
        """
        sound = torch.from_numpy(pcm16[: num_frames * SAMPLES_PER_FRAME].astype(np.float32) / 32768)
        heard = np.zeros(num_frames, np.bool_)
        for stretch in self._find(sound, self._network, sampling_rate=SAMPLE_RATE_HZ):
            first, last = (stretch[edge] // SAMPLES_PER_FRAME for edge in ("start", "end"))
            heard[first : last + 1] = True
        return heard


def long_silences(speech: Bool, fps: float) -> Bool:
    """Frames [T] that belong to a silence of MIN_SILENCE_S or more, of those in which speech is heard."""
    silent = np.zeros_like(speech)
    edges = np.flatnonzero(np.diff(np.concatenate([[True], speech, [True]]).astype(np.int8)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        silent[start:stop] = stop - start >= MIN_SILENCE_S * fps
    return silent
