"""Sound as FLAC files, lossless: int16 [S], mono at 16 kHz."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from syncdiff.pipeline.records import I16, SAMPLE_RATE_HZ


def encode_flac(pcm16: I16) -> bytes:
    """The sound as a FLAC file: lossless, and the same bytes for the same sound and library.

    Raises ValueError for sound without a sample, which FLAC cannot hold.
    """
    if len(pcm16) == 0:
        raise ValueError(f"expected sound [S] with at least one sample, got shape {pcm16.shape}")
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
