"""Media made by ffmpeg for the tests, with known contents: flashes and clicks at known times, and odd files.

Reached through the fixture `media` of conftest.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile
from numpy.typing import NDArray

FLASH_S = 0.2
CLICK_S = 0.05
CLICK_HZ = 1000

H264_AAC = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")
MPEG1_MP2 = ("-c:v", "mpeg1video", "-q:v", "2", "-c:a", "mp2")
MPEG4_PCM = ("-c:v", "mpeg4", "-q:v", "2", "-c:a", "pcm_s16le")
VP8_OPUS = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M", "-c:a", "libopus")
LOSSLESS = ("-c:v", "ffv1", "-c:a", "pcm_s16le")


def ffmpeg(*arguments: object, data: bytes | None = None) -> None:
    """Run the ffmpeg that comes with imageio-ffmpeg, which knows the options used here; fail loudly."""
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-hide_banner",
        "-loglevel",
        "error",
        "-y",
        *map(str, arguments),
    ]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")


@dataclass(frozen=True)
class Timing:
    """When the pictures of a clip are shown. `expression` says the same to ffmpeg's setpts, in seconds of
    N."""

    rate: str
    time_s: Callable[[int], Fraction]
    expression: str | None = None


def constant(rate: str) -> Timing:
    """Pictures at a constant rate, such as "25" or "30000/1001"."""
    return Timing(rate, lambda n: n / Fraction(rate))


# Steps of 33, 47 and 19 ms by turns: 30 pictures a second on average.
VARIABLE = Timing("1000", lambda n: Fraction(33 * n + 14 * (n * n % 3), 1000), "(33*N+14*mod(N*N\\,3))/1000")


@dataclass(frozen=True)
class FlashClick:
    """What `flash_click` makes. Times are those of the file; events lie on the picture nearest to each.

    video_start_s, audio_start_s: when the first picture is shown and when the sound begins; audio_end_s: when
    the sound ends, if not with the picture.
    """

    timing: Timing = field(default_factory=lambda: constant("25"))
    seconds: float = 4.0
    events_s: Sequence[float] = (0.8, 1.35, 1.9, 2.47, 3.03, 3.6)
    width_px: int = 64
    height_px: int = 48
    video_start_s: float = 0.0
    audio_start_s: float = 0.0
    audio_end_s: float | None = None
    audio_hz: int | None = 48_000
    channels: int = 1
    codecs: Sequence[str] = H264_AAC
    options: Sequence[str] = ()


def flash_click(path: Path, clip: FlashClick) -> list[float]:
    """Write a black clip with white flashes and clicks, each pair at the same instant; return those
    instants."""
    start = Fraction(clip.video_start_s).limit_denominator(1000)
    times = []
    while (time_s := start + clip.timing.time_s(len(times))) < clip.seconds:
        times.append(time_s)
    shown = [min(times, key=lambda time_s: abs(time_s - event)) for event in clip.events_s]
    frames = np.zeros((len(times), clip.height_px, clip.width_px), np.uint8)
    for event in shown:
        frames[[event <= time_s < event + FLASH_S for time_s in times]] = 255
    inputs: list[object] = ["-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{clip.width_px}x{clip.height_px}"]
    inputs += ["-r", clip.timing.rate, "-i", "-"]
    if clip.audio_hz:
        wav = path.with_name(path.name + ".source.wav")
        soundfile.write(wav, clicks(clip, [float(event) for event in shown]), clip.audio_hz)
        inputs += ["-itsoffset", clip.audio_start_s, "-i", wav]
    if clip.timing.expression or clip.video_start_s:
        shown_at = clip.timing.expression or f"N/({clip.timing.rate})"
        inputs += [
            "-vf",
            f"settb=1/90000,setpts=({shown_at}+{clip.video_start_s})/TB",
            "-fps_mode",
            "passthrough",
        ]
        inputs += ["-enc_time_base:v", "1/90000"]
    ffmpeg(*inputs, *clip.codecs, *clip.options, path, data=frames.tobytes())
    return [float(event) for event in shown]


def clicks(clip: FlashClick, events_s: Sequence[float]) -> NDArray[np.float32]:
    """Sound [S,channels] with a short tone at each event, starting at clip.audio_start_s."""
    assert clip.audio_hz
    end_s = clip.seconds if clip.audio_end_s is None else clip.audio_end_s
    samples = round((end_s - clip.audio_start_s) * clip.audio_hz)
    time_s = clip.audio_start_s + np.arange(samples) / clip.audio_hz
    sound = np.zeros(len(time_s), np.float32)
    for event in events_s:
        inside = (time_s >= event) & (time_s < event + CLICK_S)
        sound[inside] = 0.6 * np.sin(2 * np.pi * CLICK_HZ * (time_s[inside] - event))
    return np.repeat(sound[:, None], clip.channels, axis=1)


def picture_clip(
    path: Path, frames: NDArray[np.uint8], *options: object, pix_fmt: str = "rgb24", rate: str = "25"
) -> Path:
    """Write frames [t,H,W,3] (or of another pixel format) as they are, without sound; lossless unless
    told."""
    height, width = frames.shape[1:3]
    source = ("-f", "rawvideo", "-pix_fmt", pix_fmt, "-s", f"{width}x{height}", "-r", rate, "-i", "-")
    ffmpeg(*source, *(options or ("-c:v", "ffv1")), path, data=frames.tobytes())
    return path


def moving_frames(count: int, width_px: int, height_px: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth coloured pictures [count,H,W,3], each one different from the others."""
    rng = np.random.default_rng(seed)
    phase, speed = rng.uniform(0, 6, (2, 3))
    y, x = np.mgrid[:height_px, :width_px] / max(width_px, height_px)
    t = np.arange(count)[:, None, None, None] / 10
    waves = np.sin(6 * x[None, :, :, None] + 4 * y[None, :, :, None] * (1 + speed) + phase + t * (1 + speed))
    return np.round(127.5 + 100 * waves).astype(np.uint8)
