"""On stand-in weights: which sound and which frames are held against one another, not what they mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from syncdiff.evaluate.clip_pair import ClipPair, Footage
from syncdiff.evaluate.metrics.sync.lse import LipSync, distances_between
from syncdiff.evaluate.metrics.sync.lse_media import jpeg_frames
from syncdiff.evaluate.metrics.sync.silent_lse import SilentLse, SourceLse
from syncdiff.evaluate.metrics.sync.syncnet import SyncNet
from syncdiff.pipeline.records import ClipError

from ...conftest import picture, tone


def footage(path: Path) -> Footage:
    return Footage(path, lambda: pytest.fail("no face is looked for"))  # type: ignore[arg-type, return-value]


@pytest.fixture(scope="module")
def clips(make_media: Callable[..., Path]) -> tuple[Path, Path]:
    mute = make_media("mute.avi", *picture(0.8), "-c:v", "mjpeg", "-q:v", "3")
    source = make_media("source.avi", *picture(0.8), *tone(0.8), "-c:v", "mjpeg", "-c:a", "pcm_s16le")
    return mute, source


def test_silence_is_heard_in_a_file_without_sound(syncnet: SyncNet, clips: tuple[Path, Path]) -> None:
    clip = footage(clips[0])
    metric = SilentLse(syncnet)
    statistics = metric.measure(ClipPair("a", clip, None, clip))
    expected = distances_between(syncnet, jpeg_frames(clips[0]), np.zeros(20 * 640, np.int16))
    assert statistics["windows"] == expected.windows == 15
    values = metric.score(statistics)
    assert set(values) == {"silent_lse_d", "silent_lse_c"}
    # within the padding the embeddings are those of silence at each offset: at offset 0 they are equal
    assert statistics["mean_distances"][15] == pytest.approx(float(expected.mean_distances[15]), rel=1e-5)


def test_the_sources_sound_is_held_against_the_lips(syncnet: SyncNet, clips: tuple[Path, Path]) -> None:
    mute, source = (footage(path) for path in clips)
    metric = SourceLse(syncnet)
    values = metric.score(metric.measure(ClipPair("a", mute, source, mute)))
    own = LipSync(syncnet)
    expected = own.score(own.measure(ClipPair("a", mute, None, source)))
    assert values == {"source_lse_d": expected["lse_d"], "source_lse_c": expected["lse_c"]}
    with pytest.raises(ClipError, match="no-reference"):
        metric.measure(ClipPair("a", mute, None, mute))
