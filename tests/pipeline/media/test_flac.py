"""Sound as FLAC: lossless, the same bytes every time, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncdiff.pipeline.media.flac import decode_flac, encode_flac


@given(samples=st.integers(1, 20_000), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_flac_is_lossless_and_deterministic(samples: int, seed: int) -> None:
    pcm = np.random.default_rng(seed).integers(-32768, 32768, samples).astype(np.int16)
    data = encode_flac(pcm)
    assert np.array_equal(decode_flac(data), pcm)
    assert encode_flac(pcm) == data


def test_flac_of_another_kind_is_refused(media: ModuleType, tmp_path: Path) -> None:
    media.ffmpeg("-f", "lavfi", "-i", "sine=sample_rate=44100:duration=0.1", tmp_path / "a.flac")
    with pytest.raises(ValueError, match="16000 Hz"):
        decode_flac((tmp_path / "a.flac").read_bytes())


def test_sound_without_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        encode_flac(np.zeros(0, np.int16))
