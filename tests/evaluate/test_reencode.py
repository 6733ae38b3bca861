"""Copies by one codec: made once, of the same size and length, and named; nonsense is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from syncdiff.evaluate.reencode import DEFAULT, parse_codecs, reencode
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.media.probe import probe
from syncdiff.pipeline.media.read import open_video
from syncdiff.pipeline.records import ClipError

from .conftest import tone


@pytest.fixture(scope="module")
def clip(make_media: Callable[..., Path]) -> Path:
    odd = ["-f", "lavfi", "-i", "testsrc=duration=0.4:rate=25:size=65x48"]
    coded = ["-c:v", "mjpeg", "-pix_fmt", "yuvj444p", "-c:a", "pcm_s16le"]
    return make_media("in.avi", *odd, *tone(0.4), *coded)


@pytest.mark.parametrize("text", [DEFAULT, "h265:crf30+mp3:64k", "ffv1+pcm", "h264:crf0+flac"])
def test_a_name_is_what_was_written(text: str):
    assert parse_codecs(text).name == text


@pytest.mark.parametrize("text", ["h264", "h264+aac:1k", "ffv1:crf3+pcm", "h264:crf18+pcm:1k", "x+aac:1k",
                                  "h264:crf99+aac:1k", "h264:crf18+aac", "../h264:crf18+aac:1k"])  # fmt: skip
def test_nonsense_is_refused_with_an_example(text: str):
    with pytest.raises(ConfigError, match=r"--reencode"):
        parse_codecs(text)


@pytest.mark.parametrize(
    ("text", "suffix", "video", "sound"),
    [(DEFAULT, ".mp4", "h264", "aac"), ("ffv1+pcm", ".mkv", "ffv1", "pcm_s16le")],
)
def test_a_copy(clip: Path, tmp_path: Path, text: str, suffix: str, video: str, sound: str):
    before = clip.read_bytes()
    copy = reencode(clip, parse_codecs(text), tmp_path)
    info = probe(copy)
    assert (copy.suffix, info.video_codec, info.audio_codec) == (suffix, video, sound)
    assert (info.width_px, info.height_px, info.source_fps) == (65, 48, 25.0)
    assert sum(map(len, open_video(copy).chunks())) == 10
    stamp = copy.stat().st_mtime_ns
    assert reencode(clip, parse_codecs(text), tmp_path) == copy
    assert copy.stat().st_mtime_ns == stamp and clip.read_bytes() == before
    assert list(copy.parent.iterdir()) == [copy]


def test_what_cannot_be_read_leaves_nothing(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ClipError):
        reencode(tmp_path / "a.mp4", parse_codecs(DEFAULT), tmp_path / "copies")
    assert not (tmp_path / "copies").exists()
