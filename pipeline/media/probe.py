"""What a media file holds, found without trusting it: opened by ffmpeg in a process of its own.

There is no ffprobe in imageio-ffmpeg, and a library in our own process could crash it. Sizes and times, on
which the frames and the synchrony depend, come from decoded data in ffmpeg's `framecrc` format; codec names
and rates, which are description, from its report for people.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg

from syncdiff.pipeline.media.ffmpeg import SOURCE, STALL_S, FfmpegProcess, command_line, error_lines
from syncdiff.pipeline.records import FPS, ClipError

MAX_PIXELS = 8192 * 4608  # 8K pictures pass, decompression bombs do not
MAX_DURATION_S = 12 * 3600  # the sound of so long a file takes 1.4 GB of memory
MAX_START_GAP_S = 10.0  # a longer gap would be filled by a still picture or by silence
TRANSIENT_ERRORS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE)

# Containers that hold their media themselves. What is left out on purpose are the formats that name other
# files or addresses (concat, hls, dash, imf, sdp, image2 patterns, ...), that read anything (rawvideo,
# tty), or that run scripts (lavfi, avisynth, vapoursynth).
FORMATS = (
    "mov", "matroska", "avi", "mpeg", "mpegts", "mpegvideo", "asf", "flv", "ogg", "rm", "mxf", "nut", "wtv",
    "dv", "gxf", "ivf", "obu", "m4v", "h261", "h263", "h264", "hevc", "vvc", "av1", "vc1", "yuv4mpegpipe",
    "mjpeg", "gif", "apng", "png_pipe", "jpeg_pipe", "bmp_pipe", "webp_pipe", "webp_anim", "tiff_pipe",
    "wav", "w64", "aiff", "caf", "au", "mp3", "aac", "ac3", "eac3", "dts", "flac", "amr", "ape", "tta", "wv",
)  # fmt: skip
INPUT_OPTIONS = {
    "protocol_whitelist": "file,pipe",
    "format_whitelist": ",".join(FORMATS),
    "threads": 1,  # a worker owns one core
}


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds, from ffmpeg's report and from its first picture and sound, decoded.

    width_px, height_px: of the frames delivered (upright, square pixels), 0 without video. stored_width_px:
    of the upright picture before its pixels are made square. source_fps: pictures per second on average,
    nominal_fps: the rate that the time stamps are made for (both to two decimals, as ffmpeg prints them).
    duration_s: of the whole file. pixel_aspect: width over height of a stored pixel. lead_frames: how often
    the first picture is repeated because the sound starts before it. sound_offset_s: time of the first sound
    sample minus time of frame 0. pixel_format, sample_format: what the decoders deliver, in ffmpeg's names;
    full_range: luma uses 0 to 255 and not 16 to 235. container: ffmpeg's name of the format, its first where
    it has several. video_kbps, audio_kbps: as the container states them. None stands for what the file does
    not say. Of several streams of a kind, the first is meant; cover art is no video, and a sound stream
    without sound is none.
    """

    has_video: bool
    has_audio: bool
    duration_s: float | None
    width_px: int = 0
    height_px: int = 0
    source_fps: float | None = None
    nominal_fps: float | None = None
    video_codec: str | None = None
    rotation_deg: float = 0.0
    stored_width_px: int = 0
    pixel_aspect: float = 1.0
    audio_codec: str | None = None
    audio_hz: int | None = None
    audio_channels: int | None = None
    lead_frames: int = 0
    sound_offset_s: float = 0.0
    pixel_format: str | None = None
    full_range: bool = False
    sample_format: str | None = None
    container: str | None = None
    video_kbps: float | None = None
    audio_kbps: float | None = None


def probe(path: Path, *, stall_s: float = STALL_S) -> MediaInfo:
    """Open a file, decode its first picture and its first sound, and tell what it holds.

    Raises ClipError("media", ...) with reason missing-file, broken-symlink, directory, not-a-file,
    unreadable-file, empty-file, not-media, forbidden-format, truncated, too-large, too-long, start-gap,
    decode-error or decode-timeout.
    """
    _check_file(path)
    source = media_input(max_pixels=MAX_PIXELS)
    first = {"vf": "trim=end_frame=1", "af": "atrim=end_sample=1", "enc_time_base": "1/1000000"}
    command = ffmpeg.output(source["V:0?"], source["a:0?"], "-", f="framecrc", **first)
    with FfmpegProcess(command_line(command, path, "info"), stall_s=stall_s) as process:
        firsts = process.read_all(1 << 20).decode("ascii", "replace")
        status = process.finish()
        log = process.log
    report, entries = log.split("Stream mapping:")[0], _first_entries(firsts)
    undecoded = "video" not in entries and bool(_pictures(report))
    if status != 0 or undecoded:
        raise _open_failure(path, status, log)
    return _read_report(report, entries)


def media_input(**options: Any) -> Any:
    """The input node of an ffmpeg-python graph that reads an untrusted file, for `command_line`."""
    return ffmpeg.input(SOURCE, **INPUT_OPTIONS, **options)


def _check_file(path: Path) -> None:
    """Raise ClipError unless this is a regular file with something in it that may be read."""
    try:
        facts = path.stat()
        if stat.S_ISREG(facts.st_mode):  # to open a FIFO would wait for ever
            os.close(os.open(path, os.O_RDONLY))
    except ValueError as error:  # a name with a zero byte
        raise ClipError("media", "missing-file", "there is no such file") from error
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            if path.is_symlink():
                raise ClipError("media", "broken-symlink", "the link points to nothing") from error
            raise ClipError("media", "missing-file", "there is no such file") from error
        detail = f"it cannot be opened: {error.strerror}"
        transient = error.errno in TRANSIENT_ERRORS
        raise ClipError("media", "unreadable-file", detail, transient=transient) from error
    if stat.S_ISDIR(facts.st_mode):
        raise ClipError("media", "directory", "this is a folder, not a video file")
    if not stat.S_ISREG(facts.st_mode):
        raise ClipError("media", "not-a-file", "this is a pipe, socket or device, not a regular file")
    if facts.st_size == 0:
        raise ClipError("media", "empty-file", "the file has no bytes")


def _open_failure(path: Path, status: int, log: str) -> ClipError:
    """Why ffmpeg would not open or decode a file, told from its exit status and its log."""
    if status < 0:
        return ClipError("media", "decode-error", f"ffmpeg crashed on it (signal {-status})")
    lines = error_lines(log)
    last = lines[-1] if lines else "it gives no reason"
    if os.strerror(errno.EIO) in log:
        return ClipError("media", "unreadable-file", "reading it fails (input/output error)", transient=True)
    if "not on whitelist" in log:
        return ClipError("media", "forbidden-format", "its format may name other files, or is none for video")
    if "moov atom not found" in log and _starts_like_mp4(path):
        return ClipError("media", "truncated", "the MP4 file breaks off before its index (moov)")
    if re.search(r"max_pixels|max pixel|[Pp]icture size|dimensions too large", log):
        return ClipError(
            "media", "too-large", f"a picture has more than {MAX_PIXELS} pixels, or no valid size"
        )
    if "does not contain any stream" in log:
        return ClipError("media", "no-video", "it holds neither pictures nor sound")
    if "Input #0" not in log:
        return ClipError("media", "not-media", f"no pictures or sound are found in it (ffmpeg: {last})")
    return ClipError("media", "decode-error", f"nothing of it can be decoded (ffmpeg: {last})")


def _starts_like_mp4(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8)[4:8] in (b"ftyp", b"mdat", b"free", b"wide", b"skip", b"moov")


def _first_entries(text: str) -> dict[str, dict[str, str]]:
    """ffmpeg's `framecrc` output as {"video": {...}, "audio": {...}}: its header's fields and the first
    `pts`.

    A stream without any decoded frame is left out.
    """
    streams: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        header = re.match(r"#(\w+) (\d+): (.*)", line)
        if header:
            streams.setdefault(header[2], {})[header[1]] = header[3]
        elif not line.startswith("#"):
            index, _, pts = (part.strip() for part in line.split(",")[:3])
            streams[index].setdefault("pts", pts)
    return {stream["media_type"]: stream for stream in streams.values() if "pts" in stream}


def _read_report(report: str, firsts: dict[str, dict[str, str]]) -> MediaInfo:
    """MediaInfo from ffmpeg's report of an input and the first picture and sound that it decoded."""
    picture, sound = firsts.get("video"), firsts.get("audio")
    facts: dict[str, Any] = {"duration_s": None, "container": _match(r"^Input #0, (\w+)", report)}
    if duration := re.search(r"^  Duration: (\d+):(\d\d):(\d\d\.\d+)", report, re.MULTILINE):
        hours, minutes, seconds = map(float, duration.groups())
        facts["duration_s"] = hours * 3600 + minutes * 60 + seconds
        if facts["duration_s"] > MAX_DURATION_S:
            raise ClipError("media", "too-long", f"it lasts longer than {MAX_DURATION_S // 3600} hours")
    if picture:
        width, height = map(int, picture["dimensions"].split("x"))
        numerator, denominator = map(int, picture["sar"].split("/"))
        aspect = numerator / denominator if numerator and denominator else 1.0
        stored_width, width = width, max(1, round(width * aspect))
        if width * height > MAX_PIXELS:
            raise ClipError("media", "too-large", f"made square, its pixels are more than {MAX_PIXELS}")
        stream = next(iter(_pictures(report)), "")
        pixels = re.search(r"Video: [^,]*, (\w+)(?:\([^)]*\))?", stream)
        facts |= {
            "width_px": width,
            "height_px": height,
            "stored_width_px": stored_width,
            "pixel_aspect": aspect,
            "video_codec": _match(r"Video: (\w+)", stream),
            "pixel_format": pixels[1] if pixels else None,
            "full_range": bool(pixels and ("(pc" in pixels[0] or pixels[1].startswith("yuvj"))),
            "source_fps": _rate(stream, "fps"),
            "nominal_fps": _rate(stream, "tbr"),
            "video_kbps": _rate(stream, "kb/s"),
            "rotation_deg": float(_match(r"rotation of (-?[\d.]+) degrees", stream) or 0.0),
        }
    if sound:
        stream = next(iter(_streams(report, "Audio")), "")
        facts |= {
            "audio_codec": _match(r"Audio: (\w+)", stream),
            "audio_hz": int(sound["sample_rate"]),
            "audio_channels": _channels(_match(r"Audio: .*? Hz, ([^,\n]+)", stream) or ""),
            "sample_format": _match(r"Audio: .*? Hz, [^,\n]+, (\w+)", stream),
            "audio_kbps": _rate(stream, "kb/s"),
        }
    if picture and sound:
        gap = Fraction(int(picture["pts"]) - int(sound["pts"]), 1_000_000)
        if abs(gap) > MAX_START_GAP_S:
            raise ClipError("media", "start-gap", f"picture and sound start {float(abs(gap)):.1f} s apart")
        lead_frames = max(0, round(gap * FPS))
        facts |= {"lead_frames": lead_frames, "sound_offset_s": float(Fraction(lead_frames, FPS) - gap)}
    return MediaInfo(has_video=picture is not None, has_audio=sound is not None, **facts)


def _streams(report: str, kind: str) -> list[str]:
    """The parts of ffmpeg's report that describe a stream of this kind, each with its lines of side data."""
    parts = re.split(r"^ +(?=Stream #0:)", report, flags=re.MULTILINE)[1:]
    return [part for part in parts if re.match(rf"Stream #0:[^ ]+ {kind}: ", part)]


def _pictures(report: str) -> list[str]:
    """The descriptions of the video streams that are no cover art."""
    return [stream for stream in _streams(report, "Video") if "(attached pic)" not in stream]


def _match(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else None


def _rate(stream: str, unit: str) -> float | None:
    match = re.search(rf", (\d+(?:\.\d+)?)(k?) {unit}\b", stream)
    return float(match[1]) * (1000.0 if match[2] else 1.0) if match else None


def _channels(layout: str) -> int | None:
    """Number of channels of a layout as ffmpeg names it ("stereo", "5.1(side)", "3 channels"), if it does."""
    named = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "hexagonal": 6, "octagonal": 8}
    name = layout.split("(")[0].strip()
    if name in named:
        return named[name]
    digits = re.match(r"(\d+)(?: channels|\.(\d)(?:\.(\d))?)", name)
    return sum(int(part) for part in digits.groups() if part) if digits else None
