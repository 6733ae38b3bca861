"""The parts of a picture that are compared, always by the reference's face: frame, face, mouth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from syncdiff.evaluate.clip_pair import ClipPair, Faces, Footage
from syncdiff.pipeline.records import F32, I32, U8, ClipError

Region: TypeAlias = Literal["frame", "face", "mouth"]
REGIONS: tuple[Region, ...] = get_args(Region)
# The mouth region is a square of half the face box's side around the mean of the mouth's points: it holds an
# open mouth and the lips' surroundings, and its size does not change with the mouth's opening.
MOUTH_SHARE = 0.5
MOUTH_POINTS = slice(48, 68)


def crops(pair: ClipPair, region: Region) -> Iterator[tuple[U8, U8]]:
    """(generated, reference) of this region, in the reference's pixels, frame by frame.

    Frames in which the reference has no face, or hardly any of the region lies in the picture, are left out.
    Raises ClipError("region", "no-face") when no frame is left.
    """
    if region == "frame":
        yield from pair.frames()
        return
    boxes = whole_boxes(region_boxes(pair.reference_faces, region), pair.target.size_px)
    if not (boxes[:, 2] > boxes[:, 0]).any():
        raise ClipError("region", "no-face", f"the reference's {region} is in no frame")
    for (x0, y0, x1, y1), (generated, reference) in zip(boxes, pair.frames(), strict=False):
        if x1 > x0:
            yield generated[y0:y1, x0:x1], reference[y0:y1, x0:x1]


def own_crops(pair: ClipPair, region: Region) -> tuple[Iterator[U8], Iterator[U8]]:
    """Generated and reference pictures of this region, each in its own size and as many as it has.

    The reference's face gives the place on both sides: where it has none, no picture is taken. Raises
    ClipError("region", "no-face") where that is so in all frames.
    """
    generated, target = pair.compared
    if region == "frame":
        return generated.frames(), target.frames()
    boxes = region_boxes(target.speaker, region)
    own = whole_boxes(boxes, target.size_px)
    if not (own[:, 2] > own[:, 0]).any():
        raise ClipError("region", "no-face", f"the reference's {region} is in no frame")
    scale = np.divide(generated.size_px, target.size_px).astype(np.float32)
    return _cut(generated, whole_boxes(boxes * np.tile(scale, 2), generated.size_px)), _cut(target, own)


def _cut(clip: Footage, boxes: I32) -> Iterator[U8]:
    for (x0, y0, x1, y1), frame in zip(boxes, clip.frames(), strict=False):
        if x1 > x0:
            yield frame[y0:y1, x0:x1]


def region_boxes(faces: Faces, region: Region) -> F32:
    """Boxes [T,4] (x0, y0, x1, y1) in pixels, NaN where there is no face; the face's are the tracker's."""
    if region == "face":
        return faces.boxes_px
    centre = faces.landmarks_px[:, MOUTH_POINTS].mean(axis=1)
    half = (faces.boxes_px[:, 2:3] - faces.boxes_px[:, 0:1]) * MOUTH_SHARE / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def whole_boxes(boxes_px: F32, size_px: tuple[int, int]) -> I32:
    """Boxes in whole pixels within a picture of (width, height), [T,4] int32 as slices use them.

    All zero where there was none, or where less than half of one lies inside the picture.
    """
    present = np.isfinite(boxes_px.sum(axis=1))
    whole = np.rint(np.where(present[:, None], boxes_px, 0)).astype(np.int32)
    inside = np.clip(whole, 0, np.array([*size_px, *size_px], np.int32))
    enough = np.greater_equal(2 * _area(inside), np.maximum(_area(whole), 1)).reshape(-1, 1)
    return np.where(enough, inside, 0).astype(np.int32)


def _area(boxes: I32) -> NDArray[np.int64]:
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(0).astype(np.int64)
    return np.asarray(sides[:, 0] * sides[:, 1], np.int64)
