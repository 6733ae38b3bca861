"""Which rows a person should look at: a spread of the data set, and those that are likely mistakes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from syncdiff.pipeline.report.summary import Summary, frame_values, row_batches, row_values
from syncdiff.pipeline.store.read import Dataset

F64 = NDArray[np.float64]

ODD_LAG_FRAMES = 3  # 120 ms: late sound is noticed from about 125 ms on (ITU-R BT.1359-1)
SURE_CORRELATION = 0.5
WEAK_CORRELATION = 0.4
JUMP_SHARE = 0.03  # of the crop's side in one frame; heads of people who talk mostly stay below it
SPREAD_SHARE = 0.3  # of all shown rows
ALSO_RANK = 2  # a row is said to stand out by another criterion too if it is among its first two

_COLUMNS = (
    "num_frames", "source_damage", "face_size_px", "interocular_px", "sharpness", "coverage", "num_faces",
    "av_lag_frames", "av_correlation", "crop_matrix", "head_pose_deg", "mouth_opening",
)  # fmt: skip


@dataclass(frozen=True)
class RowFacts:
    """Numbers of a batch of rows [R], NaN where there is none, by which rows are judged.

    jump: the largest move of the crop from one frame to the next (see `crop_jumps`); turn_deg: the head's
    largest yaw or pitch; opening: the widest mouth; usual_lag: the median over the data set.
    """

    coverage: F64
    sharpness: F64
    interocular_px: F64
    num_faces: F64
    lag: F64
    correlation: F64
    damaged: F64
    jump: F64
    turn_deg: F64
    opening: F64
    usual_lag: float


@dataclass(frozen=True)
class Criterion:
    """A way to stand out. `score` is higher for rows more worth a look, -inf or NaN for those not at all."""

    key: str
    heading: str
    about: str
    score: Callable[[RowFacts], F64]


@dataclass(frozen=True)
class ChosenRow:
    """A row to show, by its index in the data set, and the criterion it was chosen for (None: the spread)."""

    row: int
    criterion: Criterion | None
    also: tuple[str, ...] = ()  # headings of others by which it is among the first


def _odd_lag(rows: RowFacts) -> F64:
    away = np.abs(rows.lag - rows.usual_lag)
    return np.where((away >= ODD_LAG_FRAMES) & (rows.correlation >= SURE_CORRELATION), away, -np.inf)


# The likeliest mistakes first.
CRITERIA: tuple[Criterion, ...] = (
    Criterion("jump", "The crop jumps",
              "The crop moves or grows most from one frame to the next: the tracker may have slipped, or two "
              "shots became one.",
              lambda rows: np.where(rows.jump >= JUMP_SHARE, rows.jump, -np.inf)),
    Criterion("coverage", "Face not always detected",
              "Least coverage: the missing frames were interpolated. Do the landmarks still sit on the face?",
              lambda rows: np.where(rows.coverage < 1, -rows.coverage, -np.inf)),
    Criterion("faces", "Several faces in the shot",
              "One of them was chosen. Is it the one that speaks?",
              lambda rows: np.where(rows.num_faces > 1, rows.num_faces, -np.inf)),
    Criterion("lag", "Sound and mouth agree, but not at the usual time",
              f"Correlation at least {SURE_CORRELATION}, but {ODD_LAG_FRAMES} frames or more away from the "
              "median lag: the clip may be out of sync.",
              _odd_lag),
    Criterion("correlation", "Sound and mouth hardly agree",
              f"Correlation below {WEAK_CORRELATION}: another voice, a dubbed film, noise, the wrong face, "
              "or landmarks that miss the lips.",
              lambda rows: np.where(rows.correlation < WEAK_CORRELATION, -rows.correlation, -np.inf)),
    Criterion("turn", "Heads turned furthest", "Largest yaw or pitch. Do the landmarks hold?",
              lambda rows: rows.turn_deg),
    Criterion("opening", "Mouths open widest", "Are lips and chin inside the mask?",
              lambda rows: rows.opening),
    Criterion("size", "Smallest faces", "Enlarged most to fill the crop.", lambda rows: -rows.interocular_px),
    Criterion("sharpness", "Least sharp crops", "Blurred, enlarged or badly compressed.",
              lambda rows: -rows.sharpness),
    Criterion("damage", "Damaged sources", "ffmpeg complained about these files, yet they could be used.",
              lambda rows: np.where(rows.damaged > 0, 0.0, -np.inf)),
)  # fmt: skip


def choose_rows(dataset: Dataset, summary: Summary, sheets: int) -> list[ChosenRow]:
    """At most `sheets` rows, each once: a third spread evenly, then the furthest out by each criterion.

    The same data set always gives the same choice.
    """
    total = len(dataset)
    wanted = min(sheets, total)
    ranked = _ranked(dataset, summary, wanted)
    most = wanted - round(SPREAD_SHARE * wanted)
    standing_out: dict[int, Criterion] = {}
    for _ in range(most):  # in turn, each names its best row that is left; rounds for one that names them all
        for criterion in CRITERIA:
            fresh = next((row for row in ranked[criterion.key] if row not in standing_out), None)
            if fresh is not None and len(standing_out) < most:
                standing_out[fresh] = criterion
    spread = _evenly(total, wanted - len(standing_out), standing_out.keys())
    chosen: list[tuple[int, Criterion | None]] = [(row, None) for row in spread]
    chosen += [(row, c) for c in CRITERIA for row, criterion in standing_out.items() if criterion is c]
    return [
        ChosenRow(
            row,
            criterion,
            tuple(c.heading for c in CRITERIA if c != criterion and row in ranked[c.key][:ALSO_RANK]),
        )
        for row, criterion in chosen
    ]


def _ranked(dataset: Dataset, summary: Summary, most: int) -> dict[str, list[int]]:
    """The first `most` rows by each criterion, of equal ones the earlier."""
    scores = {c.key: np.empty(0) for c in CRITERIA}
    rows = {c.key: np.empty(0, np.int64) for c in CRITERIA}
    lag = summary.distribution("av_lag_frames").median
    for first, batch in row_batches(dataset, _COLUMNS):
        facts = row_facts(batch, lag)
        for c in CRITERIA:
            score = c.score(facts)
            score = np.where(np.isnan(score), -np.inf, score)
            both = np.concatenate([scores[c.key], score])
            order = np.argsort(-both, kind="stable")[:most]
            order = order[np.isfinite(both[order])]
            scores[c.key] = both[order]
            rows[c.key] = np.concatenate([rows[c.key], first + np.arange(len(score))])[order]
    return {key: best.tolist() for key, best in rows.items()}


def _evenly(total: int, count: int, without: Collection[int]) -> list[int]:
    """`count` rows of those not in `without`, evenly over all of them, in order."""
    step = total / max(count, 1)
    spread: set[int] = set()
    for k in range(count):
        row = int((k + 0.5) * step) % total
        while row in without or row in spread:
            row = (row + 1) % total
        spread.add(row)
    return sorted(spread)


def row_facts(batch: pa.RecordBatch, usual_lag: float) -> RowFacts:
    """What the rows of a batch are judged by."""
    turn, lengths = frame_values(batch, "head_pose_deg")
    matrices, _ = frame_values(batch, "crop_matrix")
    opening, _ = frame_values(batch, "mouth_opening")
    size = np.repeat(row_values(batch, "face_size_px"), lengths)
    return RowFacts(
        coverage=row_values(batch, "coverage"),
        sharpness=row_values(batch, "sharpness"),
        interocular_px=row_values(batch, "interocular_px"),
        num_faces=row_values(batch, "num_faces"),
        lag=row_values(batch, "av_lag_frames"),
        correlation=row_values(batch, "av_correlation"),
        damaged=batch.column("source_damage").is_valid().to_numpy(zero_copy_only=False).astype(np.float64),
        jump=_row_maxima(crop_jumps(matrices.reshape(-1, 2, 3), size, lengths), lengths),
        turn_deg=_row_maxima(np.abs(turn[:, :2]).max(axis=1, initial=0.0), lengths),
        opening=_row_maxima(opening, lengths),
        usual_lag=usual_lag,
    )


def crop_jumps(
    matrices: NDArray[np.floating], size_px: NDArray[np.floating], lengths: NDArray[np.int64]
) -> F64:
    """How far each crop lies from that of the frame before, [F], as a share of its side.

    The larger of its centre's move and the logarithm of its change in size; 0 for the first frame of a row.

    matrices [F,2,3] take source pixels to crop pixels; size_px [F]; lengths [R] are the frames of each row.
    """
    (a, b, right), (c, d, down) = matrices.astype(np.float64).transpose(1, 2, 0)
    across, below = (size_px - 1) / 2 - right, (size_px - 1) / 2 - down
    with np.errstate(divide="ignore", invalid="ignore"):  # degenerate: NaN, which is never chosen
        area = a * d - b * c
        x, y = (d * across - b * below) / area, (a * below - c * across) / area
        moved = np.hypot(np.diff(x), np.diff(y)) * np.sqrt(np.abs(area))[1:] / size_px[1:]
        grown = np.abs(np.diff(np.log(np.abs(area)))) / 2
    jumps = np.concatenate([[0.0], np.maximum(moved, grown)])[: len(matrices)]
    starts = np.cumsum(lengths)[:-1]
    jumps[starts[starts < len(jumps)]] = 0.0
    return np.asarray(jumps, np.float64)


def _row_maxima(values: NDArray[np.floating], lengths: NDArray[np.int64]) -> F64:
    """The maximum of each row's frames [R], NaN for a row without frames."""
    maxima = np.full(len(lengths), np.nan)
    starts = np.cumsum(lengths) - lengths
    filled = lengths > 0
    if filled.any():
        maxima[filled] = np.fmax.reduceat(values, starts[filled])
    return maxima
