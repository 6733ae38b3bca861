"""Picture and sound stay in step: clips with a flash and a click at the same instant, made in every way."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from syncdiff.pipeline.media.read import open_video, read_audio
from syncdiff.pipeline.records import FPS, SAMPLE_RATE_HZ

TOLERANCE_S = 0.020
DETECTION_S = 0.001  # how exactly the onset of a click can be found after lossy coding


def flash_times_s(path: Path) -> NDArray[np.float64]:
    chunks = list(open_video(path).chunks())
    bright = np.concatenate([chunk.reshape(len(chunk), -1).mean(1) > 127 for chunk in chunks])
    return (np.flatnonzero(bright[1:] & ~bright[:-1]) + 1) / FPS


def click_times_s(path: Path) -> NDArray[np.float64]:
    pcm = read_audio(path)
    assert pcm is not None
    level = np.convolve(np.abs(pcm.astype(np.float64)), np.ones(16) / 16, mode="same")
    loud = np.flatnonzero(level > 0.35 * level.max())
    first = np.diff(loud, prepend=-SAMPLE_RATE_HZ) > SAMPLE_RATE_HZ / 5
    return loud[first] / SAMPLE_RATE_HZ


def check(path: Path, events: list[float], tolerance_s: float = TOLERANCE_S) -> None:
    flashes, clicks = flash_times_s(path), click_times_s(path)
    assert len(flashes) == len(clicks) == len(events)
    assert np.abs(flashes - clicks).max() <= tolerance_s + DETECTION_S
    # and what lies between the events is kept: nothing was stretched
    assert np.abs(np.diff(clicks) - np.diff(events)).max() <= 2 * DETECTION_S


@pytest.mark.parametrize("rate", ["24000/1001", "24", "25", "30000/1001", "30", "50", "60"])
def test_every_rate(media: ModuleType, tmp_path: Path, rate: str) -> None:
    clip = media.FlashClick(timing=media.constant(rate))
    events = media.flash_click(tmp_path / "clip.mp4", clip)
    check(tmp_path / "clip.mp4", events, DETECTION_S if rate == "25" else TOLERANCE_S)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("start_s", [0.0, 0.4])
def test_variable_rate(media: ModuleType, tmp_path: Path, suffix: str, start_s: float) -> None:
    path = tmp_path / f"clip.{suffix}"
    check(path, media.flash_click(path, media.FlashClick(timing=media.VARIABLE, video_start_s=start_s)))


@pytest.mark.parametrize(
    ("suffix", "codecs", "audio_hz", "channels"),
    [
        ("mp4", "H264_AAC", 44_100, 2),
        ("mov", "H264_AAC", 48_000, 6),
        ("mkv", "H264_AAC", 16_000, 1),
        ("ts", "H264_AAC", 44_100, 2),
        ("flv", "H264_AAC", 44_100, 2),
        ("mpg", "MPEG1_MP2", 44_100, 2),
        ("avi", "MPEG4_PCM", 48_000, 6),
        ("avi", "MPEG4_PCM", 8_000, 1),
        ("webm", "VP8_OPUS", 48_000, 2),
    ],
)
def test_every_container(
    media: ModuleType, tmp_path: Path, suffix: str, codecs: str, audio_hz: int, channels: int
) -> None:
    path = tmp_path / f"clip.{suffix}"
    clip = media.FlashClick(codecs=getattr(media, codecs), audio_hz=audio_hz, channels=channels)
    check(path, media.flash_click(path, clip), DETECTION_S)


@pytest.mark.parametrize(("suffix", "rate"), [("mp4", "25"), ("mkv", "30"), ("ts", "25"), ("ts", "30")])
@pytest.mark.parametrize(
    "starts", [{"video_start_s": 0.333}, {"video_start_s": 0.015}, {"audio_start_s": 0.5}], ids=str
)
def test_differing_starts(
    media: ModuleType, tmp_path: Path, suffix: str, rate: str, starts: dict[str, float]
) -> None:
    path = tmp_path / f"clip.{suffix}"
    clip = replace(media.FlashClick(timing=media.constant(rate)), **starts)
    check(path, media.flash_click(path, clip), DETECTION_S if rate == "25" else TOLERANCE_S)


def test_in_step_at_the_sources_own_rate(media: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    media.flash_click(path, media.FlashClick(timing=media.constant("30"), video_start_s=0.333))
    frames = np.concatenate(list(open_video(path, fps=Fraction(30)).chunks()))
    bright = frames.reshape(len(frames), -1).mean(1) > 127
    flashes = (np.flatnonzero(bright[1:] & ~bright[:-1]) + 1) / 30
    assert np.abs(flashes - click_times_s(path)).max() <= 1 / 60 + DETECTION_S


def test_earliest_stream_starts_at_zero(media: ModuleType, tmp_path: Path) -> None:
    """Picture 0.5 s late: its first frame is repeated; sound 0.5 s late: silence comes first."""
    late_picture, late_sound = tmp_path / "picture.mkv", tmp_path / "sound.mkv"
    clip = media.FlashClick(codecs=media.LOSSLESS, events_s=(1.0,), seconds=2.0)
    media.flash_click(late_picture, replace(clip, video_start_s=0.48))
    media.flash_click(late_sound, replace(clip, audio_start_s=0.48))
    for path in (late_picture, late_sound):
        frames = sum(len(chunk) for chunk in open_video(path).chunks())
        pcm = read_audio(path)
        assert pcm is not None
        assert (frames, len(pcm)) == (50, 32_000)
        assert flash_times_s(path) == pytest.approx([1.0])
        assert click_times_s(path) == pytest.approx([1.0], abs=DETECTION_S)


@pytest.mark.parametrize("end_s", [1.0, 3.0])
def test_sound_shorter_and_longer_than_picture(media: ModuleType, tmp_path: Path, end_s: float) -> None:
    """Both are kept as long as they are; whoever needs equal lengths calls fit_audio."""
    path = tmp_path / "clip.mkv"
    clip = media.FlashClick(codecs=media.LOSSLESS, events_s=(0.3, 0.7), seconds=2.0, audio_end_s=end_s)
    check(path, media.flash_click(path, clip), DETECTION_S)
    pcm = read_audio(path)
    assert pcm is not None
    assert len(pcm) == end_s * SAMPLE_RATE_HZ
    assert sum(len(chunk) for chunk in open_video(path).chunks()) == 50


def test_gap_in_the_sound_becomes_silence(media: ModuleType, tmp_path: Path) -> None:
    """Packets missing in the middle must not pull what follows them forward."""
    path, holed = tmp_path / "clip.mkv", tmp_path / "holed.mkv"
    events = media.flash_click(path, media.FlashClick(codecs=media.LOSSLESS, events_s=(0.4, 3.0)))
    media.ffmpeg("-i", path, "-c", "copy", "-bsf:a", "noise=drop='between(pts*tb,1,2)'", holed)
    check(holed, events, DETECTION_S)
