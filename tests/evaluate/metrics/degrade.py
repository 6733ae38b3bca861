"""Damage of known order done to real clips, as if they were the results of better and worse methods."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

from syncdiff.evaluate.clip_pair import Footage
from syncdiff.pipeline.faces.align import crop_faces, crop_matrices, paste_back, to_crop
from syncdiff.pipeline.faces.backend import FaceBackend
from syncdiff.pipeline.faces.mask import MaskConfig, mouth_masks
from syncdiff.pipeline.media.ffmpeg import ffmpeg_binary
from syncdiff.pipeline.records import U8

FACE_PX = 192
NEARLY_LOSSLESS = [
    "-c:v",
    "libx264",
    "-crf",
    "4",
    "-preset",
    "veryfast",
    "-pix_fmt",
    "yuv420p",
    "-c:a",
    "copy",
]


def ffmpeg(source: Path, target: Path, *options: str) -> Path:
    command = [
        ffmpeg_binary(),
        "-nostdin",
        "-loglevel",
        "error",
        "-y",
        "-i",
        str(source),
        *options,
        str(target),
    ]
    subprocess.run(command, check=True)
    return target


def shorten(source: Path, target: Path, seconds: float, width: int) -> Path:
    """The beginning of a clip at 25 fps and this width, with uncompressed sound."""
    options = ["-t", f"{seconds}", "-vf", f"scale={width}:-2", "-r", "25", *NEARLY_LOSSLESS[:-1], "pcm_s16le"]
    return ffmpeg(source, target, *options)


def late_sound(source: Path, target: Path, frames: int) -> Path:
    """The sound comes later by so many frames; the picture is copied bit by bit."""
    return ffmpeg(source, target, "-c:v", "copy", "-af", f"adelay={40 * frames}:all=1", "-c:a", "pcm_s16le")


def blurred(source: Path, target: Path, sigma_px: float) -> Path:
    return ffmpeg(source, target, "-vf", f"gblur=sigma={sigma_px}", *NEARLY_LOSSLESS)


def as_jpeg(source: Path, target: Path, quantiser: int) -> Path:
    """Each frame a JPEG; 2 is the best quantiser, 31 the worst."""
    return ffmpeg(source, target, "-c:v", "mjpeg", "-q:v", str(quantiser), "-huffman", "0", "-c:a", "copy")


def dropped(source: Path, target: Path, every: int) -> Path:
    """One frame in `every` is shown again in place of the next."""
    keep = f"select='not(eq(mod(n,{every}),{every - 1}))',fps=25"
    return ffmpeg(source, target, "-vf", keep, *NEARLY_LOSSLESS)


def foreign_mouth(source: Path, other: Path, target: Path, backend: FaceBackend) -> Path:
    """The mouth of another clip's face, aligned by eyes and nose, in place of this one's."""
    here, there = Footage(source, lambda: backend), Footage(other, lambda: backend)
    points = [clip.speaker.landmarks_px[clip.speaker.present] for clip in (here, there)]
    count = min(len(one) for one in points)
    matrices = [crop_matrices(one[:count], FACE_PX) for one in points]
    masks = mouth_masks(to_crop(points[0][:count], matrices[0]), FACE_PX, MaskConfig(kind="landmarks"))
    frames = []
    for t, (frame, foreign) in enumerate(zip(here.frames(), there.frames(), strict=False)):
        if t < count:
            face = crop_faces(foreign[None], matrices[1][t : t + 1], FACE_PX)[0]
            frame = paste_back(frame, face, matrices[0][t], masks[t])
        frames.append(frame)
    return encode(frames, source, target)


def encode(frames: list[U8], sound: Path, target: Path) -> Path:
    height, width = frames[0].shape[:2]
    picture = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25", "-i", "-"]
    streams = ["-i", str(sound), "-map", "0:v", "-map", "1:a"]
    command = [ffmpeg_binary(), "-loglevel", "error", "-y", *picture, *streams, *NEARLY_LOSSLESS, str(target)]
    subprocess.run(command, check=True, input=np.stack(frames).tobytes())
    return target
