"""All methods through one codec before scoring: `--reencode h264:crf18+aac:128k`.

A codec of pictures or of sound alone moves LSE and more (`tests/benchmarks/codec_spread.py` measures by how
much). Copies are written below the cache; the files themselves are only read. What a codec took away before
does not come back: this makes the last step the same for all, not the ones before it.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import ffmpeg

from syncdiff.evaluate.cache import file_digest
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.media.ffmpeg import FfmpegProcess, command_line, error_lines, ffmpeg_version
from syncdiff.pipeline.media.probe import MAX_PIXELS, media_input, probe
from syncdiff.pipeline.records import ClipError

DEFAULT = "h264:crf18+aac:128k"
VIDEO_ENCODERS = {"h264": "libx264", "h265": "libx265", "ffv1": "ffv1"}
SOUND_ENCODERS = {"aac": "aac", "mp3": "libmp3lame", "pcm": "pcm_s16le", "flac": "flac"}
IN_MP4 = {"h264", "h265", "aac", "mp3"}
PROFILE = re.compile(r"(?P<video>\w+)(?::crf(?P<crf>\d+))?\+(?P<sound>\w+)(?::(?P<kbps>\d+)k)?")


@dataclass(frozen=True)
class Codecs:
    """crf: constant rate factor of x264 or x265; kbps: of the sound. None where a codec has none."""

    video: str
    crf: int | None
    sound: str
    kbps: int | None

    @property
    def name(self) -> str:
        """As it is written on the command line, and in tables."""
        crf = "" if self.crf is None else f":crf{self.crf}"
        return f"{self.video}{crf}+{self.sound}" + ("" if self.kbps is None else f":{self.kbps}k")


def parse_codecs(text: str) -> Codecs:
    """`<video>[:crf<N>]+<sound>[:<N>k]`. Raises ConfigError."""
    profile = PROFILE.fullmatch(text)
    form = f"write it like {DEFAULT}; pictures {', '.join(VIDEO_ENCODERS)}; sound {', '.join(SOUND_ENCODERS)}"
    if profile is None or profile["video"] not in VIDEO_ENCODERS or profile["sound"] not in SOUND_ENCODERS:
        raise ConfigError(f"--reencode {text!r}: {form}")
    video, sound = profile["video"], profile["sound"]
    crf, kbps = (None if profile[part] is None else int(profile[part]) for part in ("crf", "kbps"))
    if (crf is None) != (video == "ffv1") or (kbps is None) != (sound in ("pcm", "flac")):
        raise ConfigError(
            f"--reencode {text!r}: ffv1, pcm and flac have no rate, the others need one; {form}"
        )
    if crf is not None and crf > 51:
        raise ConfigError(f"--reencode {text!r}: crf goes from 0 to 51")
    return Codecs(video, crf, sound, kbps)


def reencode(source: Path, codecs: Codecs, folder: Path) -> Path:
    """A copy of a video by these codecs in `folder`, made once for its bytes.

    Time stamps and size stay. Raises ClipError("media", ...), OSError.
    """
    key = f"{file_digest(source)} {codecs.name} {ffmpeg_version()}"
    suffix = ".mp4" if {codecs.video, codecs.sound} <= IN_MP4 else ".mkv"
    target = (
        folder / codecs.name.replace(":", "-") / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}{suffix}"
    )
    if target.is_file():
        return target
    info = probe(source)
    if not info.has_video:
        raise ClipError("media", "no-video", "the file holds no moving picture")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.stem}.{os.getpid()}.tmp{suffix}")
    even = info.stored_width_px % 2 == info.height_px % 2 == 0  # halved colour needs even sides
    options = {
        "vcodec": VIDEO_ENCODERS[codecs.video],
        "pix_fmt": "yuv420p" if even else "yuv444p",
        "threads": 1,
    }
    options |= {} if codecs.crf is None else {"crf": codecs.crf}
    options |= {} if codecs.video != "h265" else {"x265-params": "log-level=error:pools=none"}
    sound = {"acodec": SOUND_ENCODERS[codecs.sound]}
    sound |= {} if codecs.kbps is None else {"audio_bitrate": f"{codecs.kbps}k"}
    whole = media_input(max_pixels=MAX_PIXELS)
    streams = [whole["V:0"], *([whole["a:0"]] if info.has_audio else [])]
    output = ffmpeg.output(*streams, str(part), **options, **(sound if info.has_audio else {}))
    try:
        # Reports of progress on standard output show that the process is alive.
        with FfmpegProcess(
            command_line(output.global_args("-progress", "pipe:1", "-y"), source, "error")
        ) as run:
            run.read_all(1 << 24)
            if run.finish() != 0:
                detail = f"it cannot be written as {codecs.name}: {' '.join(error_lines(run.log)[-2:])}"
                raise ClipError("media", "reencode-failed", detail)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target
