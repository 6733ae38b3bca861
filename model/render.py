"""A generated face pasted into the frame that it belongs to, and results as files that everything plays."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from syncdiff.pipeline.faces.align import paste_back
from syncdiff.pipeline.media.write import PLAYABLE, SoundFile, write_video
from syncdiff.pipeline.records import F32, I16, U8, Bool, ClipError


def paste(frame: U8, made: U8, matrix: F32, mask: Bool) -> U8:
    """`frame` [H,W,3] with the generated face [R,R,3] in the place of its crop, whose mask is [N,N]."""
    size = mask.shape[0]
    if made.shape[0] != size:
        how = cv2.INTER_AREA if made.shape[0] > size else cv2.INTER_CUBIC
        made = np.asarray(cv2.resize(made, (size, size), interpolation=how), np.uint8)
    return paste_back(frame, made, matrix, mask)


def write_playable(path: Path, frames: Iterable[U8], rate: Fraction, sound: I16 | SoundFile | None) -> None:
    """Frames [H,W,3] and their sound as H.264 and AAC in MP4. Raises ClipError("render", "encode-error")."""
    try:
        write_video(path, frames, sound, PLAYABLE, rate)
    except OSError as error:
        raise ClipError("render", "encode-error", str(error), transient=True) from error
