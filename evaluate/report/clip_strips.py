"""The worst and best clips as pictures, generated over reference: frames, mouths, the mouth over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from syncdiff.evaluate.clip_pair import ClipPair, Faces, Footage
from syncdiff.evaluate.records import Case, Evaluation
from syncdiff.evaluate.report.clip_videos import write_clip_video
from syncdiff.evaluate.report.tables import MAGNITUDE, ReportTables, ValueColumn
from syncdiff.pipeline.faces.backend import FaceBackend
from syncdiff.pipeline.faces.head_pose import interocular_px, mouth_opening
from syncdiff.pipeline.features.av_sync import loudness
from syncdiff.pipeline.media.read import CHUNK_BYTES, Video
from syncdiff.pipeline.records import F32, FPS, U8, ClipError
from syncdiff.pipeline.report.charts import Series, timeline
from syncdiff.pipeline.report.contact_sheets import data_address

EXCERPT_FRAMES = 8 * FPS
STRIP_WIDTH_PX, FRAME_HEIGHT_PX, MOST_FRAME_WIDTH_PX = 1120, 140, 234
MOUTHS, MOUTH_SIZE_PX = 16, (88, 60)
MOUTH_WIDTH = 1.35  # of a mouth picture, in distances between the eyes; it shows both lips opened wide
SLICE_STEP_PX = 4  # width of a frame in the picture over time
SEAM_PX = 2
PREFERRED = ("lse_d", "av_correlation", "psnr_mouth", "psnr")


@dataclass(frozen=True)
class RankedClip:
    """A clip that is shown, and why: its rank from the worst (1) or the best, and its number."""

    case: Case
    worst: bool
    rank: int
    of: int
    number: float


@dataclass(frozen=True)
class Pictures:
    """Data addresses of the three pictures, "" where there is none; the charts; what could not be shown.

    video: address of a video of the clip, "" where none was to be written. difference: the chart of how far
    the mouths lie apart, and its height in grey levels.
    """

    frames: str = ""
    mouths: str = ""
    slices: str = ""
    chart: Markup = field(default_factory=Markup)
    video: str = ""
    difference: Markup = field(default_factory=Markup)
    most_difference: float = 0.0
    notes: tuple[str, ...] = ()
    shape: str = ""
    paired: bool = False


def ranking_column(results: ReportTables, rank_by: str | None = None) -> ValueColumn | None:
    """The column by which clips are called worst and best; None where none has a direction.

    Raises ValueError for a name that is no such column.
    """
    columns = {c.key: c for c in results.columns if c.metric.per_clip and c.directed}
    if rank_by is not None:
        rank_by = rank_by if rank_by in columns else rank_by + MAGNITUDE
        if rank_by not in columns:
            name, names = rank_by.removesuffix(MAGNITUDE), ", ".join(columns) or "none"
            raise ValueError(f"no value {name!r} to rank clips by; there are {names}")
        return columns[rank_by]
    return next((columns[key] for key in (*PREFERRED, *columns) if key in columns), None)


def choose_clips(evaluation: Evaluation, column: ValueColumn, most: int) -> list[RankedClip]:
    """For each method the worst and the best clips, about two to one, at most `most` together."""
    scored = [method for method in evaluation.methods if column.of(evaluation, method)]
    each = most // max(len(scored), 1)
    cases = {(case.method, case.clip): case for case in evaluation.cases}
    chosen = []
    for method in scored:
        numbers = column.of(evaluation, method)
        sign = -1 if column.value.better == "higher" else 1
        ranked = sorted(numbers, key=lambda clip: (-sign * numbers[clip], clip))
        worst = min(-(-2 * each // 3), 4, len(ranked))
        best = min(each - worst, 2, len(ranked) - worst)
        for is_worst, clips in ((True, ranked[:worst]), (False, ranked[::-1][:best])):
            for rank, clip in enumerate(clips, 1):
                chosen.append(RankedClip(cases[method, clip], is_worst, rank, len(ranked), numbers[clip]))
    return chosen


class _Beginning(Video):
    """A video of which only the first EXCERPT_FRAMES frames are read."""

    def chunks(self, max_bytes: int = CHUNK_BYTES) -> Iterator[U8]:
        excerpt_bytes = EXCERPT_FRAMES * 3 * self.info.width_px * self.info.height_px
        left = EXCERPT_FRAMES
        for chunk in super().chunks(min(max_bytes, excerpt_bytes, CHUNK_BYTES)):
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return


class Excerpt(Footage):
    """Footage of the first seconds of a file."""

    @cached_property
    def _video(self) -> Video:
        if not self.info.has_video:
            raise ClipError("media", "no-video", "the file holds no moving picture")
        return _Beginning(self.path, self.info)


def draw_clips(
    cases: Sequence[Case], backend: FaceBackend, most_bytes: int, videos: Path | None = None
) -> list[Pictures]:
    """Pictures of the first seconds of each case, at most about `most_bytes` a case as JPEG.

    videos: the page's folder, below which a video of each case is written; None writes none.

    What cannot be read or holds no face becomes a note. Cases of one reference are drawn one after the other,
    so that its face is followed once.
    """
    drawn: dict[int, Pictures] = {}
    reference: Excerpt | None = None
    for index in sorted(range(len(cases)), key=lambda i: str(cases[i].reference)):
        path = cases[index].reference
        if path is None:
            reference = None
        elif reference is None or reference.path != path:
            reference = Excerpt(path, lambda: backend)
        drawn[index] = _draw_clip(cases[index], reference, backend, most_bytes, videos)
    return [drawn[index] for index in range(len(cases))]


def _draw_clip(
    case: Case, reference: Excerpt | None, backend: FaceBackend, most_bytes: int, videos: Path | None
) -> Pictures:
    generated, sound = Excerpt(case.generated, lambda: backend), Footage(case.sound, lambda: backend)
    pair = ClipPair(case.clip, generated, reference, sound, by_time=True)
    try:
        count = pair.generated.num_frames if reference is None else pair.num_frames
        drawn = _draw(pair, count, most_bytes)
        video = "" if videos is None else write_clip_video(pair, case.method, count, videos)
        return replace(drawn, video=video)
    except ClipError as error:
        return Pictures(notes=(f"cannot be shown: {error.reason}: {error.detail}",))


def _draw(pair: ClipPair, count: int, most_bytes: int) -> Pictures:
    notes = []
    reference = generated = None
    try:
        generated = pair.generated_faces
    except ClipError as error:
        notes.append(f"generated: {error.reason}: {error.detail}")
    if pair.reference is not None:
        try:
            reference = pair.reference_faces
        except ClipError as error:
            notes.append(f"reference: {error.reason}: {error.detail}")
    *pictures, apart = _gather(pair, count, reference or generated)
    frames, mouths, slices = (
        data_address(picture, int(most_bytes * share)) if picture is not None else ""
        for picture, share in zip(pictures, (0.6, 0.25, 0.15), strict=True)
    )
    most = max(8.0, float(apart.max())) if len(apart) else 0.0  # a difference of 8 levels is hardly seen
    curve = Series("difference", "difference", apart, 0.0, most, filled=True)
    width, height = pair.generated.size_px
    seconds = f"{count / FPS:.1f} s" if count < EXCERPT_FRAMES else f"the first {count / FPS:.0f} s"
    return Pictures(
        frames=frames,
        mouths=mouths,
        slices=slices,
        chart=_chart(pair, generated, reference, count),
        difference=timeline([curve], rate_hz=FPS, label="difference in the mouth") if most else Markup(""),
        most_difference=most,
        notes=tuple(notes),
        shape=f"{width} × {height}, {seconds}",
        paired=pair.reference is not None,
    )


def _gather(pair: ClipPair, count: int, place: Faces | None) -> tuple[U8 | None, U8 | None, U8 | None, F32]:
    """Whole frames, mouths, and a line through the mouth of every frame; each generated over reference.

    Last the mean absolute difference of the mouths in grey levels [T], empty where there is no pair of them.
    """
    width, height = (pair.reference or pair.generated).size_px
    strip_frames = round(STRIP_WIDTH_PX / min(FRAME_HEIGHT_PX * width / height, MOST_FRAME_WIDTH_PX))
    whole_at, mouth_at = set(_evenly(count, strip_frames)), set(_evenly(count, MOUTHS))
    boxes = None if place is None or not place.present.any() else mouth_boxes(place)
    whole: list[list[U8]] = []
    mouths: list[list[U8]] = []
    lines: list[list[U8]] = []
    apart: list[float] = []
    stream = ((f,) for f in pair.generated.frames()) if pair.reference is None else pair.frames()
    for t, rows in zip(range(count), stream, strict=False):
        if t in whole_at:
            whole.append([_small(frame) for frame in rows])
        if boxes is not None:
            cut = [_cut_mouth(frame, boxes[min(t, len(boxes) - 1)]) for frame in rows]
            lines.append([_line(mouth) for mouth in cut])
            if len(cut) == 2:
                apart.append(float(cv2.absdiff(cut[0], cut[1]).mean()))
            if t in mouth_at:
                mouths.append(cut)
    pictures = _stack(whole, SEAM_PX), _stack(mouths, SEAM_PX), _stack(lines, 0)
    return *pictures, np.array(apart, np.float32)


def _evenly(count: int, number: int) -> list[int]:
    """Up to `number` frames of `count`, in the middle of as many equal parts."""
    number = min(number, count)
    return [(2 * k + 1) * count // (2 * number) for k in range(number)]


def _small(frame: U8) -> U8:
    height, width = frame.shape[:2]
    scale = min(FRAME_HEIGHT_PX / height, MOST_FRAME_WIDTH_PX / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def mouth_boxes(faces: Faces) -> NDArray[np.float64]:
    """Mouth centre and width of the picture of it, in pixels: [T,3]; frames without face take the nearest."""
    present = np.flatnonzero(faces.present)
    points = faces.landmarks_px[present]
    centre = points[:, 48:68].mean(axis=1)
    width = MOUTH_WIDTH * np.full(len(present), float(np.median(interocular_px(points))))
    boxes = np.concatenate([centre, width[:, None]], axis=1).astype(np.float64)
    nearest = np.abs(np.arange(len(faces.present))[:, None] - present).argmin(axis=1)
    return np.asarray(boxes[nearest])


def _cut_mouth(frame: U8, box: NDArray[np.float64]) -> U8:
    x, y, width = box
    size = MOUTH_SIZE_PX
    scale = size[0] / max(width, 1.0)
    matrix = np.array([[scale, 0, size[0] / 2 - scale * x], [0, scale, size[1] / 2 - scale * y]])
    return np.asarray(cv2.warpAffine(frame, matrix, size, flags=cv2.INTER_LINEAR), np.uint8)


def _line(mouth: U8) -> U8:
    """The middle of the mouth from top to bottom, as a stripe [H,SLICE_STEP_PX,3]."""
    middle = mouth.shape[1] // 2
    line = mouth[:, middle - 2 : middle + 3].mean(axis=1, keepdims=True)
    return np.repeat(np.rint(line).astype(np.uint8), SLICE_STEP_PX, axis=1)


def _stack(columns: Sequence[Sequence[U8]], seam_px: int) -> U8 | None:
    """Pictures beside each other in time, generated above reference."""
    if not columns:
        return None
    rows = []
    for row in zip(*columns, strict=True):
        parts = [np.pad(part, ((0, 0), (0, seam_px), (0, 0)), constant_values=255) for part in row]
        rows.append(np.concatenate(parts, axis=1)[:, : -seam_px or None])
    seam = np.full((SEAM_PX, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([rows[0], *(part for row in rows[1:] for part in (seam, row))], axis=0)


def _chart(pair: ClipPair, generated: Faces | None, reference: Faces | None, count: int) -> Markup:
    """Mouth opening of both and loudness of the sound that drove the clip, over the same time."""
    series = []
    openings = {"truth": _opening(reference, count), "opening": _opening(generated, count)}
    top = max([0.2, *(float(np.nanmax(opening)) for opening in openings.values() if opening is not None)])
    for style, opening in openings.items():
        if opening is not None:
            series.append(Series(style, style, opening, 0.0, top))
    try:
        level = loudness(pair.sound.sound, count)
        loudest = float(level.max())
        series.insert(0, Series("loudness", "loudness", level, loudest - 50, loudest + 2, filled=True))
    except ClipError:
        pass  # a clip without sound has a chart without loudness
    if not series:
        return Markup("")
    return timeline(series, rate_hz=FPS, label="mouth opening of generated and reference, and loudness")


def _opening(faces: Faces | None, count: int) -> F32 | None:
    if faces is None or not faces.present.any():
        return None
    opening = np.full(count, np.nan, np.float32)
    present = np.flatnonzero(faces.present[:count])
    opening[present] = mouth_opening(faces.landmarks_px[present])
    return opening if np.isfinite(opening).any() else None
