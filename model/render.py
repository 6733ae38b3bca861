"""Results as files: generated faces pasted into full frames, encoded so that everything plays them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from syncdiff.pipeline.faces.align import paste_back
from syncdiff.pipeline.media.ffmpeg import feed_frames, ffmpeg_binary
from syncdiff.pipeline.media.probe import INPUT_OPTIONS
from syncdiff.pipeline.records import F32, I16, SAMPLE_RATE_HZ, U8, Bool, ClipError

# Visually lossless for H.264 (x264's documentation calls 17 or 18 so): what lies outside the mask must stay
# the source.
CRF = 16


def paste(frame: U8, made: U8, matrix: F32, mask: Bool) -> U8:
    """`frame` [H,W,3] with the generated face [R,R,3] in the place of its crop, whose mask is [N,N]."""
    size = mask.shape[0]
    if made.shape[0] != size:
        how = cv2.INTER_AREA if made.shape[0] > size else cv2.INTER_CUBIC
        made = np.asarray(cv2.resize(made, (size, size), interpolation=how), np.uint8)
    return paste_back(frame, made, matrix, mask)


@dataclass(frozen=True)
class SoundFile:
    """The sound of a file, played from `start_s` seconds into it; where that is negative, after silence."""

    path: Path
    start_s: float


def write_video(
    path: Path, frames: Iterable[U8], rate: Fraction, sound: I16 | SoundFile | None, count: int
) -> None:
    """Encode `count` frames [H,W,3] and their sound (int16 [S] at 16 kHz, or a file's) as H.264 and AAC in
    MP4.

    yuv420p and faststart, so that browsers and players of every kind take it. That needs even sides: an odd
    one grows by a repeated pixel. The file appears whole or not at all. Raises ClipError("render",
    "encode-error").
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part.mp4")
    raw = path.with_name(f".{path.stem}.part.s16le")
    try:
        if isinstance(sound, np.ndarray):
            raw.write_bytes(sound.astype("<i2").tobytes())
        _encode(part, frames, rate, _sound_options(sound, raw, count / rate))
        part.replace(path)
    except OSError as error:
        raise ClipError("render", "encode-error", f"{path}: {error}", transient=True) from error
    finally:
        part.unlink(missing_ok=True)
        raw.unlink(missing_ok=True)


def _sound_options(sound: I16 | SoundFile | None, raw: Path, duration_s: Fraction) -> list[str]:
    """ffmpeg's options for a second input with the sound, exactly as long as the picture."""
    if sound is None:
        return []
    whole = f"apad,atrim=end={float(duration_s):.6f}"
    out = ["-map", "0:v", "-map", "1:a:0", "-c:a", "aac"]
    if not isinstance(sound, SoundFile):
        source = ["-f", "s16le", "-ar", str(SAMPLE_RATE_HZ), "-ac", "1", "-i", f"file:{raw}"]
        return [*source, *out, "-af", whole]
    limits = [part for key, value in INPUT_OPTIONS.items() for part in (f"-{key}", str(value))]
    start_ms = round(-1000 * sound.start_s)
    shift = (
        f"adelay={start_ms}:all=1"
        if start_ms > 0
        else f"atrim=start={sound.start_s:.6f},asetpts=PTS-STARTPTS"
    )
    source = [*limits, "-i", f"file:{sound.path.absolute()}"]
    return [*source, *out, "-b:a", "192k", "-af", f"aresample=async=1:first_pts=0,{shift},{whole}"]


def _encode(target: Path, frames: Iterable[U8], rate: Fraction, sound: list[str]) -> None:
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ClipError("render", "no-frames", f"{target}: there is no frame to write")
    height, width = first.shape[:2]
    odd = ((0, height % 2), (0, width % 2), (0, 0))
    height, width = height + height % 2, width + width % 2
    # The matrix is named in the file, or players would guess it from the size and shift the colours.
    colours = "scale=out_color_matrix=bt709:out_range=tv"
    command = [ffmpeg_binary(), "-hide_banner", "-nostdin", "-loglevel", "error", "-y", "-f", "rawvideo"]
    command += ["-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "pipe:0", *sound]
    command += ["-vf", colours, "-c:v", "libx264", "-preset", "veryfast", "-crf", str(CRF)]
    command += ["-pix_fmt", "yuv420p"]
    command += ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    command += ["-movflags", "+faststart", f"file:{target.absolute()}"]
    feed_frames(command, (np.pad(frame, odd, mode="edge") for frame in itertools.chain([first], frames)))
