"""Any video that ffmpeg reads becomes RGB frames at 25 a second and mono sound at 16 kHz, in step with each
other.

Time. The first picture that decodes, at the time p of the file, is put on the 25-per-second grid; every
other one goes to the nearest grid point, by its time stamp. A source at 25 per second therefore passes
frame by frame, whatever its offset, and no picture is more than 20 ms from its place. The sound is cut or
padded to the sample, so that its sample 0 lies at the time of frame 0. Where the sound starts earlier than
the picture, the first picture is repeated to the nearest whole frame and the sound keeps all but the
fraction of a frame; where it starts later, silence is put before it.

Pictures are turned upright by the file's rotation, given square pixels by scaling the width, and converted
to RGB; transparency is dropped. A picture whose size changes within the file is scaled to the first size.

Files are not trusted: see `INPUT_OPTIONS` and `syncdiff.pipeline.ffmpeg_process`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np

from syncdiff.pipeline.ffmpeg_process import STALL_S, FfmpegProcess, error_lines, ffmpeg_binary
from syncdiff.pipeline.records import FPS, I16, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, U8, ClipError

CHUNK_BYTES = 64 * 1024 * 1024
MAX_PIXELS = 8192 * 4608  # 8K pictures pass, decompression bombs do not
MAX_DURATION_S = 12 * 3600
MAX_START_GAP_S = 10.0
MIN_DECODED_SHARE = 0.5

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

    width_px, height_px: of the frames delivered (upright, square pixels), 0 without video. source_fps:
    pictures per second on average, nominal_fps: the rate that the time stamps are made for (both to two
    decimals, as ffmpeg prints them). duration_s: of the whole file. pixel_aspect: width over height of a
    stored pixel. lead_frames: how often the first picture is repeated because the sound starts before it.
    start_us: time of the first picture, in microseconds of the file's clock. sound_offset_s: time of the
    first sound sample minus time of frame 0. pixel_format, sample_format: what the decoders deliver, in
    ffmpeg's names; full_range: luma uses 0 to 255 and not 16 to 235. None stands for what the file does not
    say.
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
    pixel_aspect: float = 1.0
    audio_codec: str | None = None
    audio_hz: int | None = None
    audio_channels: int | None = None
    start_us: int = 0
    lead_frames: int = 0
    sound_offset_s: float = 0.0
    pixel_format: str | None = None
    full_range: bool = False
    sample_format: str | None = None


def probe(path: Path, *, stall_s: float = STALL_S) -> MediaInfo:
    """Open a file, decode its first picture and its first sound, and tell what it holds.

    There is no ffprobe in imageio-ffmpeg, and a library in our own process could crash it. Sizes and times,
    on which the frames and the synchrony depend, therefore come from decoded data in ffmpeg's `framecrc`
    format; codec names and rates, which are description, from its report for people.

    Raises ClipError("media", ...) with reason missing-file, broken-symlink, directory, not-a-file,
    unreadable-file, empty-file, not-media, forbidden-format, truncated, too-large, start-gap, decode-error
    or decode-timeout.
    """
    _check_file(path)
    source = ffmpeg.input(_url(path), **INPUT_OPTIONS, max_pixels=MAX_PIXELS)
    first = {"vf": "trim=end_frame=1", "af": "atrim=end_sample=1", "enc_time_base": "1/1000000"}
    command = ffmpeg.output(source["V:0?"], source["a:0?"], "-", f="framecrc", **first)
    with FfmpegProcess(_compile(command, "info"), stall_s=stall_s) as process:
        firsts = process.read_all(1 << 20).decode("ascii", "replace")
        status = process.finish()
        log = process.log
    if status != 0:
        raise _open_failure(path, log)
    return _read_report(log.split("Stream mapping:")[0], _first_entries(firsts))


class Video:
    """Frames of one file: `info`, and `chunks`, which can be gone through more than once.

    `damage` is None until a pass over the frames has met an error in the file; then it is ffmpeg's first
    message. A damaged file is used as far as it decodes, unless less than MIN_DECODED_SHARE of its stated
    duration does.
    """

    def __init__(self, path: Path, info: MediaInfo, *, stall_s: float = STALL_S) -> None:
        self.path = path
        self.info = info
        self.damage: str | None = None
        self._stall_s = stall_s
        self._whole: U8 | None = None

    def chunks(self, max_bytes: int = CHUNK_BYTES) -> Iterator[U8]:
        """The frames in order, as arrays [t,H,W,3] uint8 RGB of at most `max_bytes` (but at least one frame).

        The file is decoded again on each call, unless all of it fitted into one chunk, which is then kept
        (and read-only). Memory does not grow with the length of the video.

        Raises ClipError("media", ...) with reason decode-error, decode-timeout, truncated or too-long.
        """
        if self._whole is not None and self._whole.nbytes <= max_bytes:
            yield self._whole
            return
        info = self.info
        shape = (info.height_px, info.width_px, 3)
        chunk_frames = max(1, max_bytes // (shape[0] * shape[1] * shape[2]))
        total = 0
        with FfmpegProcess(_compile(self._command(), "error"), stall_s=self._stall_s) as process:
            while True:
                chunk = np.empty((chunk_frames, *shape), np.uint8)
                filled = process.read_into(chunk.data.cast("B")) // (chunk.nbytes // chunk_frames)
                total += filled
                if filled < chunk_frames:
                    self._check_end(process, total)
                    chunk = chunk[:filled]
                    chunk.flags.writeable = False
                    self._whole = chunk if total == filled else None
                if total > MAX_DURATION_S * FPS:
                    raise ClipError("media", "too-long", f"more than {MAX_DURATION_S // 3600} hours of video")
                if filled:
                    yield chunk
                if filled < chunk_frames:
                    return

    def _command(self) -> Any:
        info = self.info
        stream = ffmpeg.input(_url(self.path), **INPUT_OPTIONS, max_pixels=MAX_PIXELS)["V:0"]
        stream = stream.filter("setpts", f"round(PTS-({info.start_us}/1000000)/TB)").filter("fps", fps=FPS)
        if info.lead_frames:
            stream = stream.filter("tpad", start=info.lead_frames, start_mode="clone")
        stream = stream.filter("scale", info.width_px, info.height_px)
        return ffmpeg.output(stream, "-", f="rawvideo", pix_fmt="rgb24")

    def _check_end(self, process: FfmpegProcess, frames: int) -> None:
        status = process.finish()
        messages = error_lines(process.log)
        if messages or status != 0:
            self.damage = messages[0] if messages else f"ffmpeg ended with status {status}"
        if frames == 0:
            raise ClipError("media", "decode-error", f"no picture could be decoded: {self.damage}")
        promised = round((self.info.duration_s or 0.0) * FPS)
        if self.damage and frames < MIN_DECODED_SHARE * promised:
            raise ClipError("media", "truncated", f"{frames} of {promised} frames decode: {self.damage}")


def open_video(path: Path, *, info: MediaInfo | None = None, stall_s: float = STALL_S) -> Video:
    """Open the pictures of a file; `info` saves probing it again.

    Raises ClipError as `probe` does, and with reason no-video.
    """
    info = info or probe(path, stall_s=stall_s)
    if not info.has_video:
        raise ClipError("media", "no-video", "the file holds no moving picture")
    return Video(path, info, stall_s=stall_s)


def read_audio(path: Path, *, info: MediaInfo | None = None, stall_s: float = STALL_S) -> I16 | None:
    """Sound of a file: int16 [S], mono, 16 kHz, sample 0 at the time of frame 0; None if it has no sound.

    Several channels are mixed by ffmpeg's rule. Gaps in the time stamps become silence. `info` saves
    probing again.

    Raises ClipError as `probe` does.
    """
    info = info or probe(path, stall_s=stall_s)
    if not info.has_audio:
        return None
    stream = ffmpeg.input(_url(path), **INPUT_OPTIONS)["a:0"].filter(
        "aresample", SAMPLE_RATE_HZ, **{"async": 1}
    )
    command = ffmpeg.output(stream, "-", f="s16le", acodec="pcm_s16le", ac=1, ar=SAMPLE_RATE_HZ)
    with FfmpegProcess(_compile(command, "error"), stall_s=stall_s) as process:
        data = process.read_all(2 * SAMPLE_RATE_HZ * MAX_DURATION_S)
        process.finish()
        log = process.log
    if not data:
        raise ClipError("media", "decode-error", f"no sound could be decoded: {_last(error_lines(log))}")
    pcm = np.frombuffer(data, "<i2").astype(np.int16, copy=False)
    shift = round(info.sound_offset_s * SAMPLE_RATE_HZ)
    return pcm[-shift:].copy() if shift < 0 else np.concatenate([np.zeros(shift, np.int16), pcm])


def fit_audio(pcm: I16, num_frames: int) -> tuple[I16, int]:
    """Cut or zero-pad the tail so that there are exactly 640 samples a frame.

    Returns the sound [num_frames * 640] and how many samples were appended (negative: cut off).
    """
    missing = num_frames * SAMPLES_PER_FRAME - len(pcm)
    return (np.pad(pcm, (0, missing)) if missing > 0 else pcm[: len(pcm) + missing]), missing


def _compile(stream: Any, loglevel: str) -> list[str]:
    stream = stream.global_args("-hide_banner", "-nostdin", "-loglevel", loglevel)
    return list(stream.compile(cmd=ffmpeg_binary()))


def _url(path: Path) -> str:
    """The path in a form that ffmpeg takes for neither an option nor an address, whatever the name."""
    return f"file:{path.absolute()}"


def _check_file(path: Path) -> None:
    """Raise ClipError unless this is a regular file with something in it that may be read."""
    try:
        mode = path.stat()
        if stat.S_ISDIR(mode.st_mode):
            raise ClipError("media", "directory", "this is a folder, not a video file")
        if not stat.S_ISREG(mode.st_mode):  # opening a FIFO would wait for ever
            raise ClipError("media", "not-a-file", "this is a pipe, socket or device, not a regular file")
        if mode.st_size == 0:
            raise ClipError("media", "empty-file", "the file has no bytes")
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise ClipError("media", "broken-symlink", "the link points to nothing") from error
        if isinstance(error, FileNotFoundError):
            raise ClipError("media", "missing-file", "there is no such file") from error
        raise ClipError("media", "unreadable-file", f"cannot be opened: {error.strerror}") from error


def _open_failure(path: Path, log: str) -> ClipError:
    """Why ffmpeg would not open or decode a file, told from its log."""
    lines = error_lines(log)
    last = _last(lines)
    if "not on whitelist" in log:
        return ClipError(
            "media", "forbidden-format", "the file is of a kind that may name other files, or is rare"
        )
    if "moov atom not found" in log and _starts_like_mp4(path):
        return ClipError("media", "truncated", "the MP4 file breaks off before its index (moov)")
    if "exceeds specified max pixel count" in log or "Picture size" in log:
        return ClipError("media", "too-large", f"a picture has more than {MAX_PIXELS} pixels")
    if "does not contain any stream" in log:
        return ClipError("media", "no-video", "the file holds neither pictures nor sound")
    if "Input #0" not in log:
        return ClipError("media", "not-media", f"ffmpeg finds no media in it: {last}")
    return ClipError("media", "decode-error", last)


def _starts_like_mp4(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8)[4:8] in (b"ftyp", b"mdat", b"free", b"wide", b"skip", b"moov")


def _last(lines: list[str]) -> str:
    return lines[-1] if lines else "ffmpeg gave no reason"


def _first_entries(text: str) -> dict[str, dict[str, str]]:
    """ffmpeg's `framecrc` output as {"video": {...}, "audio": {...}} with the header's fields and `pts` of
    the first.

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
    duration = re.search(r"^  Duration: (\d+):(\d\d):(\d\d\.\d+)", report, re.MULTILINE)
    facts: dict[str, Any] = {
        "has_video": picture is not None,
        "has_audio": sound is not None,
        "duration_s": _seconds(*duration.groups()) if duration else None,
    }
    if picture:
        facts |= _picture_facts(report, picture)
    if sound:
        facts |= _sound_facts(report, sound)
    if picture and sound:
        facts |= _alignment(int(picture["pts"]), int(sound["pts"]))
    return MediaInfo(**facts)


def _picture_facts(report: str, first: dict[str, str]) -> dict[str, Any]:
    width, height = (int(side) for side in first["dimensions"].split("x"))
    numerator, denominator = (int(part) for part in first["sar"].split("/"))
    aspect = numerator / denominator if numerator and denominator else 1.0
    width = max(1, round(width * aspect))
    if width * height > MAX_PIXELS:
        raise ClipError(
            "media", "too-large", f"a picture has more than {MAX_PIXELS} pixels once they are square"
        )
    stream = next((text for text in _streams(report, "Video") if "(attached pic)" not in text), "")
    pixels = re.search(r"Video: [^,]*, (\w+)(?:\([^)]*\))?", stream)
    rotation = re.search(r"rotation of (-?[\d.]+) degrees", stream)
    return {
        "width_px": width,
        "height_px": height,
        "pixel_aspect": aspect,
        "video_codec": _match(r"Video: (\w+)", stream),
        "pixel_format": pixels[1] if pixels else None,
        "full_range": bool(pixels and ("(pc" in pixels[0] or pixels[1].startswith("yuvj"))),
        "source_fps": _rate(stream, "fps"),
        "nominal_fps": _rate(stream, "tbr"),
        "rotation_deg": float(rotation[1]) if rotation else 0.0,
        "start_us": int(first["pts"]),
    }


def _sound_facts(report: str, first: dict[str, str]) -> dict[str, Any]:
    stream = next(iter(_streams(report, "Audio")), "")
    layout = _match(r"Audio: .*? Hz, ([^,\n]+)", stream)
    return {
        "audio_codec": _match(r"Audio: (\w+)", stream),
        "audio_hz": int(first["sample_rate"]),
        "audio_channels": _channels(layout) if layout else None,
        "sample_format": _match(r"Audio: .*? Hz, [^,\n]+, (\w+)", stream),
    }


def _alignment(picture_us: int, sound_us: int) -> dict[str, Any]:
    gap = Fraction(picture_us - sound_us, 1_000_000)
    if abs(gap) > MAX_START_GAP_S:
        raise ClipError("media", "start-gap", f"picture and sound start {float(abs(gap)):.1f} s apart")
    lead_frames = max(0, round(gap * FPS))
    return {"lead_frames": lead_frames, "sound_offset_s": float(Fraction(lead_frames, FPS) - gap)}


def _streams(report: str, kind: str) -> list[str]:
    """The parts of ffmpeg's report that describe a stream of this kind, each with its lines of side data."""
    parts = re.split(r"^  (?=Stream #0:)", report, flags=re.MULTILINE)[1:]
    return [part for part in parts if re.match(rf"Stream #0:[^ ]+ {kind}: ", part)]


def _match(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1] if found else None


def _rate(stream: str, unit: str) -> float | None:
    found = re.search(rf", (\d+(?:\.\d+)?)(k?) {unit}\b", stream)
    return float(found[1]) * (1000.0 if found[2] else 1.0) if found else None


def _seconds(hours: str, minutes: str, seconds: str) -> float:
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _channels(layout: str) -> int | None:
    """Number of channels of a layout as ffmpeg names it: "stereo", "5.1(side)", "3 channels"."""
    named = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "hexagonal": 6, "octagonal": 8}
    name = layout.split("(")[0].strip()
    if name in named:
        return named[name]
    digits = re.match(r"(\d+)(?: channels|\.(\d)(?:\.(\d))?)", name)
    return sum(int(part) for part in digits.groups() if part) if digits else None
