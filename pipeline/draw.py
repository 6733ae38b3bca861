"""Pictures for people: landmarks and mask over a crop, and JPEGs inside a page."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from syncdiff.pipeline.records import F32, U8, Bool

DRAWN_PX = 256  # side of a crop with landmarks and mask, so that lines stay finer than lips
QUALITIES = (86, 75, 60, 45)

# RGB of what is drawn; the page's legend uses the same (report.html.j2).
MASK_RGB = (64, 150, 255)
FACE_RGB = (120, 235, 120)
LIPS_RGB = (255, 214, 64)
MASK_TINT = 0.18

# iBUG 300-W: lines of jaw, brows, nose, eyes and lips as (first, last, closed).
_FACE_LINES = (
    (0, 16, False), (17, 21, False), (22, 26, False), (27, 30, False), (31, 35, False),
    (36, 41, True), (42, 47, True),
)  # fmt: skip
_LIP_LINES = ((48, 59, True), (60, 67, True))
_SUBPIXEL_BITS = 4


def draw_over(crop: U8, landmarks: F32, mask: Bool) -> U8:
    """A crop [N,N,3] with mask [N,N] and landmarks [68,2] (crop pixels) drawn over it, side `DRAWN_PX`."""
    size = len(crop)
    picture = cv2.resize(crop, (DRAWN_PX, DRAWN_PX), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    inside = cv2.resize(mask.astype(np.uint8), (DRAWN_PX, DRAWN_PX), interpolation=cv2.INTER_NEAREST)
    picture[inside > 0] += MASK_TINT * (np.array(MASK_RGB, np.float32) - picture[inside > 0])
    drawn = np.ascontiguousarray(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
    outlines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, outlines, -1, MASK_RGB, 1, cv2.LINE_AA)
    points = (landmarks.astype(np.float64) + 0.5) * (DRAWN_PX / size) - 0.5
    # Points far outside of the crop would overflow OpenCV's fixed-point numbers.
    fixed = np.rint(np.clip(points, -DRAWN_PX, 2 * DRAWN_PX) * 2**_SUBPIXEL_BITS).astype(np.int32)
    for lines, colour in ((_FACE_LINES, FACE_RGB), (_LIP_LINES, LIPS_RGB)):
        for first, last, closed in lines:
            line = [fixed[first : last + 1]]
            cv2.polylines(drawn, line, closed, colour, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
    for index, (x, y) in enumerate(fixed):
        colour = FACE_RGB if index < 48 else LIPS_RGB
        cv2.circle(drawn, (int(x), int(y)), 22, colour, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return np.asarray(drawn, np.uint8)


def data_address(picture: U8, most_bytes: int) -> str:
    """RGB picture as the address of an inline JPEG: the best quality within `most_bytes`, or the lowest."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    data = b""
    for quality in QUALITIES:
        data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= most_bytes:
            break
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def resized(picture: U8, side: int) -> U8:
    """A square picture at another size."""
    method = cv2.INTER_AREA if side < len(picture) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (side, side), interpolation=method), np.uint8)
