"""Frames and sound become a video file: the one place where ffmpeg encodes."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile

from syncdiff.pipeline.media.ffmpeg import ffmpeg_binary
from syncdiff.pipeline.media.probe import INPUT_OPTIONS
from syncdiff.pipeline.records import FPS, I16, SAMPLE_RATE_HZ, U8

# Leaves out dates and random identifiers, so that the same frames give the same bytes.
BIT_EXACT = ("-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact")


@dataclass(frozen=True)
class Encoding:
    """ffmpeg's name of the container and its options for pictures and for sound.

    even_sides: chroma has half the resolution, so an odd side has to grow by a repeated pixel.
    """

    container: str
    picture: tuple[str, ...]
    sound: tuple[str, ...]
    even_sides: bool


# What `open_video` and `read_audio` then give is equal to what was written.
LOSSLESS = Encoding(
    container="matroska",
    picture=("-c:v", "ffv1", "-level", "3", "-g", "1", "-pix_fmt", "bgr0", *BIT_EXACT),
    sound=("-c:a", "pcm_s16le"),
    even_sides=False,
)

# H.264 with yuv420p and faststart, so that browsers and players of every kind take it. 16 is visually
# lossless (x264's documentation calls 17 or 18 so): what lies outside the mask must stay the source. The
# colour matrix is named in the file, or players would guess it from the size and shift the colours.
PLAYABLE = Encoding(
    container="mp4",
    picture=(
        "-vf", "scale=out_color_matrix=bt709:out_range=tv",
        "-c:v", "libx264", "-preset", "veryfast", "-crf", "16", "-pix_fmt", "yuv420p",
        "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709",
        "-movflags", "+faststart",
    ),
    sound=("-c:a", "aac"),
    even_sides=True,
)  # fmt: skip


@dataclass(frozen=True)
class SoundFile:
    """`duration_s` of a file's sound, from `start_s` on; silence before its beginning and after its end."""

    path: Path
    start_s: float
    duration_s: Fraction


def write_video(
    path: Path,
    frames: Iterable[U8],
    sound: I16 | SoundFile | None,
    encoding: Encoding,
    rate: Fraction = Fraction(FPS),
) -> None:
    """Encode frames [H,W,3] RGB of one size, `rate` a second, and their sound (int16 [S] at 16 kHz, or a
    file's).

    The file appears whole or not at all. Raises OSError, with ffmpeg's message where that is what failed, or
    when there is no frame. What `frames` raises ends ffmpeg and goes on.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise OSError(f"{path}: there is no frame to write")
    height, width = first.shape[:2]
    odd = (height % 2, width % 2) if encoding.even_sides else (0, 0)
    size = f"{width + odd[1]}x{height + odd[0]}"
    command = [ffmpeg_binary(), "-hide_banner", "-nostdin", "-loglevel", "error", "-y"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(rate), "-i", "pipe:0"]
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the renaming is one step; by process, since two may write the same reference.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    wav = path.with_name(f".{path.name}.{os.getpid()}.wav")
    try:
        if isinstance(sound, SoundFile):  # a second input, which is not trusted, and the part that is heard
            command += [word for key, value in INPUT_OPTIONS.items() for word in (f"-{key}", str(value))]
            command += ["-i", f"file:{sound.path.absolute()}", "-map", "0:v", "-map", "1:a:0"]
            start_ms = round(-1000 * sound.start_s)
            if start_ms > 0:
                shift = f"adelay={start_ms}:all=1"
            else:
                shift = f"atrim=start={sound.start_s:.6f},asetpts=PTS-STARTPTS"
            end = f"apad,atrim=end={float(sound.duration_s):.6f}"
            command += ["-af", f"aresample=async=1:first_pts=0,{shift},{end}"]
            command += ["-b:a", "192k", *encoding.sound]  # such a file may be stereo at 48 kHz
        elif sound is not None:
            soundfile.write(wav, sound, SAMPLE_RATE_HZ, subtype="PCM_16", format="WAV")
            command += ["-i", f"file:{wav.absolute()}", *encoding.sound]
        command += [*encoding.picture, "-f", encoding.container, f"file:{part.absolute()}"]
        padded = (
            np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge") if any(odd) else frame
            for frame in itertools.chain([first], frames)
        )
        _run(command, padded, path)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        wav.unlink(missing_ok=True)


def _run(command: list[str], frames: Iterable[U8], path: Path) -> None:
    """Run an ffmpeg that reads raw frames from its standard input."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        try:
            for frame in frames:
                process.stdin.write(np.ascontiguousarray(frame).data)
            process.stdin.close()
        except BrokenPipeError:  # it ended early; its message says why
            with contextlib.suppress(BrokenPipeError):  # what is still in the buffer has nowhere to go
                process.stdin.close()
        except BaseException:
            process.kill()
            raise
        message = process.stderr.read().decode("utf-8", "replace").strip()
    if process.returncode != 0:
        raise OSError(f"{path}: ffmpeg could not write it: {message[-400:]}")
