"""auto_avsr's mouth videos with their own alignment, and landmarks that spare its users the detection.

Facts from `preparation/detectors/retinaface/video_process.py`, `preparation/preprocess_lrs2lrs3.py` and
`datamodule/` of mpc001/auto_avsr (182b628); its points of the mean face are those of `20words_mean_face.npy`.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from syncdiff.pipeline.datasets.listing import source_path
from syncdiff.pipeline.export.base import (
    Content,
    ExportCounts,
    LeftOutError,
    OnClip,
    export_clips,
    folder_name,
    pictures_of,
    transcript_of,
    wav_bytes,
    write_lines,
    write_whole,
)
from syncdiff.pipeline.media.read import open_video
from syncdiff.pipeline.media.write import PLAYABLE, write_video
from syncdiff.pipeline.records import F32, FPS, U8, ClipError
from syncdiff.pipeline.store.read import ClipView, Dataset

STABLE_POINTS = (28, 33, 36, 39, 42, 45, 48, 54)
MEAN_FACE_PX = (
    (128.489, 106.925),
    (128.870, 137.303),
    (92.522, 94.369),
    (112.772, 94.944),
    (145.525, 94.535),
    (166.677, 93.566),
    (107.168, 157.196),
    (152.193, 156.987),
)
CANVAS_PX, PATCH_PX = 256, 96
WINDOW_FRAMES = 12  # landmarks are averaged over at most six frames before and after
MOST_BIAS_PX = 5  # how far beyond a patch's half the mouth may lie from the canvas' middle
SEGMENT_S = 16  # their file names say `seg16s`; our rows are not cut again


@dataclass(frozen=True)
class Tokens:
    """auto_avsr's words: a SentencePiece model and the number of each unit."""

    model: Any
    numbers: Mapping[str, int]

    def encode(self, transcript: str) -> str:
        unknown = self.numbers["<unk>"]
        return " ".join(str(self.numbers.get(p, unknown)) for p in self.model.EncodeAsPieces(transcript))


def load_tokens(model: Path, units: Path) -> Tokens:
    """Their `spm/unigram/unigram5000.model` and `unigram5000_units.txt`. Raises ImportError without
    sentencepiece, ValueError where a file is not what it should be."""
    import sentencepiece

    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        pairs = [line.split() for line in units.read_text("utf-8").splitlines() if line.strip()]
        numbers = {pair[0]: int(pair[-1]) for pair in pairs}
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"{model} and {units} are no SentencePiece model and its units: {error}") from error
    if "<unk>" not in numbers:
        raise ValueError(f"{units} has no <unk>")
    return Tokens(processor, numbers)


def export_auto_avsr(
    dataset: Dataset,
    out: Path,
    raw: Path | None = None,
    tokens: Tokens | None = None,
    on_clip: OnClip = lambda clip: None,
) -> ExportCounts:
    """`<ds>/<ds>_video_seg16s/*.{mp4,wav}`, `<ds>/<ds>_text_seg16s/*.txt` and, with tokens, `labels/*.csv`.

    <ds> is the data set's layout. The videos are 96x96 in colour, aligned as auto_avsr aligns them, from the
    source with `raw`, else from the stored crops (sampled a second time). A label line is
    `<ds>,<video>,<frames>,<unit numbers>`. Rows without sound or transcript, and rows whose mouth leaves
    their canvas, are left out.
    """

    def place(clip: ClipView, kind: str) -> Path:
        layout = clip.clip_id.split("/")[0]
        return Path(f"{layout}_{kind}_seg{SEGMENT_S}s") / folder_name(clip.clip_id)

    def files_of(clip: ClipView) -> Mapping[Path, Content]:
        folder = out / clip.clip_id.split("/")[0]
        video, text = folder / place(clip, "video"), folder / place(clip, "text")
        transcript = transcript_of(clip)
        return {
            video.with_name(f"{video.name}.mp4"): partial(_write_mouths, clip, raw),
            video.with_name(f"{video.name}.wav"): wav_bytes(clip),
            text.with_name(f"{text.name}.txt"): transcript.encode(),
        }

    counts, clips = export_clips(dataset, files_of, on_clip)
    lines: dict[tuple[str, str], list[str]] = {}
    for clip in clips if tokens is not None else []:
        assert tokens is not None
        layout, split = clip.clip_id.split("/")[0], str(clip.value("split"))
        split = "train" if split == "pretrain" else split
        units = tokens.encode(transcript_of(clip))
        lines.setdefault((layout, split), []).append(
            f"{layout},{place(clip, 'video')}.mp4,{clip.num_frames},{units}"
        )
    for (layout, split), entries in lines.items():
        write_lines(out / "labels" / f"{layout}_{split}_transcript_lengths_seg{SEGMENT_S}s.csv", entries)
    return counts


def _write_mouths(clip: ClipView, raw: Path | None, path: Path) -> None:
    pictures = pictures_of(clip, raw)
    write_video(path, mouth_patches(pictures.frames, pictures.landmarks_px), None, PLAYABLE)


def mouth_patches(frames: Iterator[U8], landmarks_px: F32) -> Iterator[U8]:
    """Frames [H,W,3] with landmarks [T,68,2] to colour patches [96,96,3], as auto_avsr's VideoProcess.

    The points are averaged over a window centred on the frame that narrows towards the ends, moved to the
    frame's own centre, and fitted to the mean face by least median of squares. Raises LeftOutError where the
    mouth lies too far from the canvas' middle: their program drops such a clip.
    """
    points = landmarks_px.astype(np.float64)
    half, target = PATCH_PX // 2, np.array(MEAN_FACE_PX)
    for t, frame in enumerate(frames):
        reach = min(WINDOW_FRAMES // 2, t, len(points) - 1 - t)
        smooth = points[t - reach : t + reach + 1].mean(axis=0)
        smooth += points[t].mean(axis=0) - smooth.mean(axis=0)
        matrix = cv2.estimateAffinePartial2D(smooth[list(STABLE_POINTS)], target, method=cv2.LMEDS)[0]
        if matrix is None:
            raise LeftOutError("no face shape to align")
        canvas = cv2.warpAffine(frame, matrix, (CANVAS_PX, CANVAS_PX), flags=cv2.INTER_LINEAR)
        x, y = (smooth[48:68] @ matrix[:, :2].T + matrix[:, 2]).mean(axis=0)
        if max(abs(x - CANVAS_PX / 2), abs(y - CANVAS_PX / 2)) > half + MOST_BIAS_PX:
            raise LeftOutError("the mouth lies outside auto_avsr's canvas")
        x0, x1 = (round(float(np.clip(x + side, 0, CANVAS_PX))) for side in (-half, half))
        y0, y1 = (round(float(np.clip(y + side, 0, CANVAS_PX))) for side in (-half, half))
        yield np.ascontiguousarray(canvas[y0:y1, x0:x1])


def export_landmarks(
    dataset: Dataset, out: Path, raw: Path, on_clip: OnClip = lambda clip: None
) -> ExportCounts:
    """`<source without suffix>.pkl`: a list with the 68x2 landmarks or None of every frame of a source.

    For `--landmarks-dir` of auto_avsr and `--landmark-direc` of AV-HuBERT. A source's first face counts; a
    frame in which it was not detected is None. Sources at another rate than 25 frames per second are left
    out: those programs number the frames of the file itself.
    """
    by_source: dict[str, list[ClipView]] = {}
    left_out: dict[str, int] = {}
    written = kept = 0
    for clip in dataset:
        if "#" not in clip.clip_id:  # `#k` marks further faces of the same frames
            by_source.setdefault(str(clip.value("source")), []).append(clip)
        on_clip(clip)
    for source, clips in by_source.items():
        path = (out / source).with_suffix(".pkl")
        try:
            if path.is_file():
                kept += 1
                continue
            frames: list[np.ndarray[Any, Any] | None] = [None] * _count_frames(clips[0], raw)
            for clip in clips:
                start = int(clip.value("start_frame"))
                points, detected = clip.column("landmarks_px"), clip.column("detected")
                frames[start : start + len(points)] = [
                    p if seen else None for p, seen in zip(points, detected, strict=True)
                ]
            write_whole(path, _pickled(frames))
            written += 1
        except LeftOutError as reason:
            left_out[str(reason)] = left_out.get(str(reason), 0) + 1
    return ExportCounts(written, kept, left_out)


def _pickled(frames: list[np.ndarray[Any, Any] | None]) -> bytes:
    """A pickle that NumPy 1 reads as well, which those programs run with: NumPy 2 moved the module that an
    array names. Protocol 2 writes such names as lines of text."""
    return pickle.dumps(frames, protocol=2).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def _count_frames(clip: ClipView, raw: Path) -> int:
    if abs(float(clip.value("source_fps")) - FPS) > 0.01:
        raise LeftOutError("the source has another rate than 25 frames/s")
    try:
        return sum(map(len, open_video(source_path(raw, str(clip.value("source")))).chunks()))
    except (OSError, ClipError) as error:
        raise LeftOutError("the source cannot be read") from error
