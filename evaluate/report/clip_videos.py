"""A clip as a small video beside the page: the reference left, the generated clip right, with its sound."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.pipeline.media.write import PLAYABLE, write_video
from syncdiff.pipeline.records import I16, SAMPLES_PER_FRAME, U8, ClipError

FOLDER = "report-videos"
HEIGHT_PX, MOST_WIDTH_PX = 240, 426
# Eight seconds of two pictures take about 200 kB; the mouth still shows what the figures speak of.
SMALL = replace(
    PLAYABLE,
    picture=tuple("26" if word == "16" else word for word in PLAYABLE.picture),
    sound=("-c:a", "aac", "-b:a", "64k"),
)


def write_clip_video(pair: ClipPair, method: str, count: int, folder: Path) -> str:
    """Write the first `count` frames below `folder`; the file's address from a page in there.

    Raises ClipError where a file cannot be read, OSError where none can be written.
    """
    name = hashlib.sha256(f"{method}\0{pair.name}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    path = folder / FOLDER / f"{name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    sound: I16 | None = None
    try:
        sound = pair.sound.sound[: count * SAMPLES_PER_FRAME]
        sound = np.pad(sound, (0, count * SAMPLES_PER_FRAME - len(sound)))
    except ClipError:
        pass  # a clip without sound plays without
    write_video(path, islice(_side_by_side(pair), count), sound, SMALL)
    return f"./{FOLDER}/{path.name}"


def _side_by_side(pair: ClipPair) -> Iterator[U8]:
    if pair.reference is None:
        yield from map(_small, pair.generated.frames())
        return
    for generated, reference in pair.frames():
        yield np.concatenate([_small(reference), _small(generated)], axis=1)


def _small(frame: U8) -> U8:
    height, width = frame.shape[:2]
    scale = min(HEIGHT_PX / height, MOST_WIDTH_PX / width)
    size = tuple(max(2, 2 * round(side * scale / 2)) for side in (width, height))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
