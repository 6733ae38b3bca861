"""The frames and the sound that Wav2Lip's LRS script sees, from any ffmpeg, with nothing written to disk.

The script (Rudrabha/Wav2Lip, evaluation/scores_LSE, calculate_scores_LRS.py) has ffmpeg write every frame as
a JPEG of default quality and the sound as 16 kHz mono. What that gives depends on the ffmpeg, so the steps
that differ are fixed here to what ffmpeg 4 and 5 do, with which the published figures were made:

- Default quality means a target of 200 kbit/s, whose rate control runs per encoder thread: one thread.
- ffmpeg 8 changed the conversion of luma and chroma to JPEG's full range by up to one level, which moves
  mean distances by 1e-3. The older conversion (libswscale/swscale.c, lumRangeToJpeg_c and chrRangeToJpeg_c)
  is a table of 256 values for each plane, and is applied as one.
- ffmpeg 6 resamples 16-bit sound in floating point; older ones in 16 bits.

The JPEGs come over a pipe, in the MPJPEG container that states each picture's length.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import ffmpeg
import numpy as np

from syncdiff.evaluate.metrics.sync.syncnet import IMAGE_SIZE_PX
from syncdiff.pipeline.media.ffmpeg import FfmpegProcess, command_line
from syncdiff.pipeline.media.probe import MAX_PIXELS, MediaInfo, media_input, probe
from syncdiff.pipeline.media.read import decode_sound
from syncdiff.pipeline.records import FPS, I16, U8, ClipError

HEADER_END = b"\r\n\r\n"
READ_BYTES = 16 * 1024
# swscale holds 8-bit values times 128, converts them with these factors, adds half and divides by 128.
LUMA_TO_FULL_RANGE = "floor((floor((min(val*128,30189)*19077-39057361)/16384)+64)/128)"
CHROMA_TO_FULL_RANGE = "floor((floor((min(val*128,30775)*4663-9289992)/4096)+64)/128)"
PLANAR_8_BIT = ("yuv420p", "yuv422p", "yuv444p")


def jpeg_frames(path: Path, *, fps: float | None = FPS, info: MediaInfo | None = None) -> Iterator[U8]:
    """Every frame after its JPEG round trip, whole, scaled to SyncNet's input: [224,224,3] uint8 BGR.

    fps: rate to which a file of another rate is brought by dropping and repeating frames; None takes the
    frames as they are, as the script does, which makes sense at 25 per second only.

    Raises ClipError("media", ...) as `probe` does, and with reason no-video, decode-error, decode-timeout.
    """
    info = info or probe(path)
    if not info.has_video:
        raise ClipError("media", "no-video", "the file holds no moving picture")
    stream = media_input(max_pixels=MAX_PIXELS)["V:0"]
    if not info.full_range and info.pixel_format in PLANAR_8_BIT:
        planes = {"y": LUMA_TO_FULL_RANGE, "u": CHROMA_TO_FULL_RANGE, "v": CHROMA_TO_FULL_RANGE}
        stream = stream.filter("lutyuv", **planes).filter("setparams", range="pc")
    if fps is not None and info.source_fps not in (None, fps):
        stream = stream.filter("fps", fps=fps)
    output = ffmpeg.output(stream, "-", f="mpjpeg", threads=1)
    for image in decode_jpegs(output, path):
        yield np.asarray(cv2.resize(image, (IMAGE_SIZE_PX, IMAGE_SIZE_PX)), np.uint8)


def decode_jpegs(output: Any, source: Path) -> Iterator[U8]:
    """The pictures [H,W,3] uint8 BGR of an ffmpeg-python graph that writes MPJPEG to standard output.

    Raises ClipError("media", ...) with reason decode-error, decode-timeout.
    """
    with FfmpegProcess(command_line(output, source, "error")) as process:
        frames = 0
        for jpeg in _split(process):
            yield np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))
            frames += 1
        process.finish()
        if frames == 0:
            raise ClipError("media", "decode-error", f"no picture could be decoded: {process.log[-200:]}")


def protocol_sound(path: Path, *, info: MediaInfo | None = None) -> I16:
    """Sound as the script has ffmpeg write it: int16 [S], mono, 16 kHz, gaps filled, start not aligned.

    Raises ClipError("media", ...) as `probe` does, and with reason no-sound, decode-error, decode-timeout.
    """
    info = info or probe(path)
    if not info.has_audio:
        raise ClipError("media", "no-sound", "the file holds no sound")
    in_16_bits = info.sample_format in ("u8", "u8p", "s16", "s16p")
    return decode_sound(path, {"internal_sample_fmt": "s16p"} if in_16_bits else {})


def _split(process: FfmpegProcess) -> Iterator[bytes]:
    """The pictures of an MPJPEG stream: each a boundary, a header that states the length, and the JPEG."""
    buffer = bytearray()
    block = memoryview(bytearray(READ_BYTES))
    more = True
    while True:
        header, separator, _ = buffer.partition(HEADER_END)
        end = len(header) + len(separator) + (_content_length(bytes(header)) if separator else 0)
        if separator and len(buffer) >= end:
            yield bytes(buffer[len(header) + len(separator) : end])
            del buffer[:end]
        elif more:
            count = process.read_into(block)
            more = count == len(block)
            buffer += block[:count]
        elif separator:
            raise ClipError("media", "decode-error", "ffmpeg's stream of pictures broke off")
        else:
            return


def _content_length(header: bytes) -> int:
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ClipError("media", "decode-error", "ffmpeg's stream of pictures cannot be read")
