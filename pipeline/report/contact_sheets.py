"""Contact sheets: a row of the data set as pictures by which a person finds mistakes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from syncdiff.pipeline.faces.align import to_crop
from syncdiff.pipeline.features.av_sync import loudness
from syncdiff.pipeline.records import F32, FPS, SAMPLE_RATE_HZ, U8, Bool
from syncdiff.pipeline.report.charts import Series, picture_map, timeline
from syncdiff.pipeline.report.outliers import crop_jumps
from syncdiff.pipeline.report.render import signed
from syncdiff.pipeline.store.read import ClipView

MOMENTS = 6  # one row of the page
PLAIN_PX = 176  # side of pose and identity frames
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
_SUBPIXEL_BITS = 4  # OpenCV draws at sixteenths of a pixel


@dataclass(frozen=True)
class Picture:
    """A JPEG as a data address, with the text that stands for it and the line below it."""

    address: str
    alt: str
    caption: tuple[str, ...]  # parts, broken only between them


@dataclass(frozen=True)
class Moment:
    """A frame with what belongs to it: its crop drawn over, and the frames that condition it (None: none)."""

    number: int
    frame: int
    note: str
    drawn: Picture
    pose: Picture | None
    identity: Picture | None


@dataclass(frozen=True)
class Sheet:
    """A row as it is shown: facts are (name, value) for people, warnings what drawing it found wrong."""

    clip_id: str
    chips: tuple[str, ...]
    warnings: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    moments: tuple[Moment, ...]
    chart: Markup
    map: Markup


def make_sheet(view: ClipView, chips: Sequence[str], image_bytes: int) -> Sheet:
    """Draw a row. `image_bytes` bounds a picture's size, as far as JPEG quality can."""
    opening, detected = view.column("mouth_opening"), view.column("detected")
    shown = choose_moments(opening, detected)
    frames = [t for t, _ in shown]
    landmarks = to_crop(view.column("landmarks_px")[frames], view.column("crop_matrix")[frames])
    masks = view.masks(frames)

    def condition(kind: str, frame: int, chosen: int) -> Picture | None:
        """The frame `chosen` that conditions `frame`, None where there is none (-1)."""
        if chosen < 0:
            return None
        picture = view.frames([chosen])[0]
        method = cv2.INTER_AREA if len(picture) > PLAIN_PX else cv2.INTER_CUBIC
        picture = np.asarray(cv2.resize(picture, (PLAIN_PX, PLAIN_PX), interpolation=method), np.uint8)
        caption = (str(chosen), f"({signed(chosen - frame)})")
        address = data_address(picture, image_bytes)
        return Picture(address, f"{kind} frame {chosen} of frame {frame}", caption)

    pose_index, identity_index = view.column("pose_index"), view.column("identity_index")
    moments = []
    for number, (t, note) in enumerate(shown):
        drawn = data_address(draw_over(view.frames([t])[0], landmarks[number], masks[number]), image_bytes)
        alt, caption = f"frame {t} with landmarks and mask", (f"frame {t}", f"{t / FPS:.2f} s")
        identity = identity_index[t][0] if identity_index.shape[1:] != (0,) else -1
        moments.append(
            Moment(
                number=number + 1,
                frame=t,
                note=note,
                drawn=Picture(drawn, alt, caption),
                pose=condition("pose", t, int(pose_index[t])),
                identity=condition("identity", t, int(identity)),
            )
        )
    boxes = view.column("boxes_px")[frames]
    width, height = int(view.value("source_width_px")), int(view.value("source_height_px"))
    return Sheet(
        clip_id=view.clip_id,
        chips=tuple(chips),
        warnings=tuple(_warnings(view, frames, landmarks, masks)),
        facts=tuple(_facts(view)),
        moments=tuple(moments),
        chart=_chart(view, opening, frames),
        map=picture_map(width, height, boxes.tolist(), f"face boxes in the {width} × {height} picture"),
    )


def choose_moments(opening: F32, detected: Bool) -> list[tuple[int, str]]:
    """Up to six frames evenly over time, as (frame, note).

    In the sixth where it lies, the frame of the widest mouth takes the place of the middle one, and so does,
    in the sixth where most are, one whose face was interpolated: masks and landmarks fail there first.
    """
    total = len(opening)
    count = min(MOMENTS, total)
    edges = [k * total // count for k in range(count + 1)]
    chosen = [((first + last) // 2, "") for first, last in pairwise(edges)]
    part = np.searchsorted(edges, np.arange(total), "right") - 1
    missing = ~detected
    if missing.any():
        worst = int(np.bincount(part[missing], minlength=count).argmax())
        inside = np.flatnonzero(missing & (part == worst))
        chosen[worst] = (int(inside[len(inside) // 2]), "interpolated")
    widest = int(np.nan_to_num(opening, nan=-1.0).argmax())
    note = "mouth widest" if detected[widest] else "mouth widest, interpolated"
    chosen[int(part[widest])] = (widest, note)
    return chosen


def _warnings(view: ClipView, frames: Sequence[int], landmarks: F32, masks: Bool) -> list[str]:
    """What can be seen to be wrong without an eye."""
    size = masks.shape[1]
    uncovered, outside = [], []
    for t, points, mask in zip(frames, landmarks, masks, strict=True):
        x, y = np.rint(points[48:68]).astype(int).T
        inside = (x >= 0) & (y >= 0) & (x < size) & (y < size)
        if not mask[y[inside], x[inside]].all():
            uncovered.append(str(t))
        face = points[17:]  # without the jaw, which a crop may cut
        if (face < -0.5).any() or (face > size - 0.5).any():
            outside.append(str(t))
    warnings = []
    if uncovered:
        warnings.append("lip points outside the mask in frame " + ", ".join(uncovered))
    if outside:
        warnings.append("face points outside the crop in frame " + ", ".join(outside))
    if view.value("source_damage"):
        warnings.append("damaged source")
    return warnings


def _chart(view: ClipView, opening: F32, frames: Sequence[int]) -> Markup:
    """Mouth opening and loudness over time, with the moments shown and the lag."""
    top = max(0.2, float(np.nanmax(opening, initial=0.0)))
    series = [Series("mouth opening", "opening", opening, 0.0, top)]
    sound = view.audio()
    span = None
    if sound is not None:
        level = loudness(sound, len(opening))
        loudest = float(level.max())
        series.insert(0, Series("loudness", "loudness", level, loudest - 50, loudest + 2, filled=True))
        lag = view.value("av_lag_frames")
        if lag:
            middle = len(opening) / 2 / FPS
            span = (middle, middle + lag / FPS, lag_text(lag, brief=True))
    missing = np.concatenate([[False], ~view.column("detected"), [False]])
    edges = (np.flatnonzero(np.diff(missing.astype(np.int8))) / FPS).tolist()
    return timeline(
        series,
        rate_hz=FPS,
        label="mouth opening and loudness over time",
        marks=[((t + 0.5) / FPS, str(number + 1)) for number, t in enumerate(frames)],
        span=span,
        bands=list(zip(edges[::2], edges[1::2], strict=True)),
    )


def lag_text(lag_frames: int | None, *, brief: bool = False) -> str:
    """The lag in words, such as `sound 3 frames (120 ms) early`; without milliseconds if `brief`."""
    if lag_frames is None:
        return "unknown"
    if lag_frames == 0:
        return "0: sound and mouth together"
    frames = "frame" if abs(lag_frames) == 1 else "frames"
    side = "late" if lag_frames > 0 else "early"
    time = "" if brief else f" ({abs(lag_frames) * 1000 // FPS} ms)"
    return f"sound {abs(lag_frames)} {frames}{time} {side}"


def _facts(view: ClipView) -> list[tuple[str, str]]:
    """What is known of a row, as (name, value) for people; what is not known is left out."""
    pose, opening = view.column("head_pose_deg"), view.column("mouth_opening")
    matrices: NDArray[np.float64] = view.column("crop_matrix").astype(np.float64)
    scale = np.median(np.sqrt(np.abs(np.linalg.det(matrices[..., :2]))))  # crop pixels per source pixel
    frames, correlation = view.num_frames, view.value("av_correlation")
    jumps = crop_jumps(matrices, np.full(frames, float(view.value("face_size_px"))), np.array([frames]))
    most = int(np.nan_to_num(jumps).argmax())
    start = view.value("start_frame")
    width, height, fps = (view.value(f"source_{name}") for name in ("width_px", "height_px", "fps"))
    span = f"{frames} {'frame' if frames == 1 else 'frames'}, {frames / FPS:.2f} s" + (
        f", from frame {start} of the source" if start else ""
    )
    padded = view.value("audio_padded_samples")

    def turn(axis: int) -> str:
        degrees = pose[:, axis]
        return f"{signed(round(float(degrees.min())))}° to {signed(round(float(degrees.max())))}°"

    facts = [
        ("speaker", view.value("speaker_id")),
        ("said", view.value("transcript")),
        ("source", view.value("source")),
        ("picture", f"{width} × {height} at {fps:.4g} fps"),
        ("length", span),
        ("eyes apart", f"{view.value('interocular_px'):.0f} px, scaled by {scale:.2g}"),
        ("coverage", f"{100 * view.value('coverage'):.1f} % detected"),
        ("crop moves", f"up to {100 * jumps[most]:.1f} %, at frame {most}"),
        ("sharpness", f"{view.value('sharpness'):.0f}"),
        ("faces", f"{view.value('num_faces')} in the shot"),
        ("lag", "no sound in the source" if padded is None else lag_text(view.value("av_lag_frames"))),
        ("correlation", "undefined" if correlation is None else f"{correlation:.2f}"),
        *((name, turn(axis)) for axis, name in ((1, "yaw"), (0, "pitch"), (2, "roll"))),
        ("mouth", f"{np.nanmin(opening):.2f} to {np.nanmax(opening):.2f} open"),
        ("silence", f"{padded * 1000 / SAMPLE_RATE_HZ:.0f} ms added at the end" if padded else None),
        ("ffmpeg said", view.value("source_damage")),
    ]
    return [(name, v if len(v) <= 200 else v[:199] + "…") for name, v in facts if v]


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
