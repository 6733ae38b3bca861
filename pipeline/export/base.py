"""What all exports share: names, pictures and sound of a row, and files that appear whole or not at all."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import numpy as np
import soundfile
from numpy.typing import NDArray

from syncdiff.pipeline.datasets.listing import source_path
from syncdiff.pipeline.faces.align import to_crop
from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.media.read import open_video
from syncdiff.pipeline.records import F32, SAMPLE_RATE_HZ, U8, ClipError
from syncdiff.pipeline.store.read import ClipView, Dataset

# What other programs call our splits; a split that is not named here keeps its name. AV-HuBERT and its
# descendants train on the parts that LRS2 and LRS3 call `pretrain` together with `train`.
FAIRSEQ_SPLITS = {"val": "valid", "pretrain": "train"}

Content: TypeAlias = bytes | Callable[[Path], None]
OnClip: TypeAlias = Callable[[ClipView], None]


class LeftOutError(Exception):
    """A row that a target cannot take; the message says why, and rows of one reason are counted together."""


@dataclass(frozen=True)
class ExportCounts:
    """Rows written, rows that were there already, and rows left out by reason."""

    written: int = 0
    kept: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Pictures:
    """A row's pictures [H,W,3] uint8 RGB in order, its landmarks [T,68,2] and boxes [T,4] in their pixels."""

    frames: Iterator[U8]
    width_px: int
    height_px: int
    landmarks_px: F32
    boxes_px: F32


def folder_name(clip_id: str) -> str:
    """A clip_id without its layout as a relative folder name that is safe in lists and shells.

    Letters, digits and -_.@/ stay; all else is percent-encoded, and so is a leading dot or dash.
    """
    parts = clip_id.split("/")
    safe = [quote(part, safe="-_.@") for part in parts[1:] or parts]
    return "/".join(f"%{ord(p[0]):02X}{p[1:]}" if p[:1] in ("-", ".") else p for p in safe)


def flat_name(clip_id: str) -> str:
    """The same as a single name, unique in the data set: `+` joins its parts and occurs in none of them."""
    return folder_name(clip_id).replace("/", "+")


def fairseq_split(clip: ClipView) -> str:
    """The row's split as fairseq's programs call it: train, valid or test."""
    split = str(clip.value("split"))
    return FAIRSEQ_SPLITS.get(split, split)


def export_clips(
    dataset: Dataset,
    files_of: Callable[[ClipView], Mapping[Path, Content]],
    on_clip: OnClip = lambda clip: None,
) -> tuple[ExportCounts, list[ClipView]]:
    """Write the files of every row, those that are there already excepted; returns the rows that are there.

    `files_of` gives each file's bytes, or a function that writes it to a path; it may raise LeftOutError, and
    the functions may as well. A file appears whole or not at all, so a second run continues.
    """
    written = kept = 0
    left_out: Counter[str] = Counter()
    exported = []
    for clip in dataset:
        try:
            missing = {path: content for path, content in files_of(clip).items() if not path.is_file()}
            for path, content in missing.items():
                write_whole(path, content)
        except LeftOutError as reason:
            left_out[str(reason)] += 1
        else:
            exported.append(clip)
            written, kept = written + bool(missing), kept + (not missing)
        on_clip(clip)
    return ExportCounts(written, kept, dict(left_out)), exported


def write_whole(path: Path, content: Content) -> None:
    """Write a file beside its place and rename it: its bytes, or what a function writes to a path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.part{path.suffix}")
    try:
        if isinstance(content, bytes):
            part.write_bytes(content)
        else:
            content(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_lines(path: Path, lines: list[str]) -> None:
    """A list file, one entry a line, replaced whole: it is made from all rows at every run."""
    write_whole(path, "".join(f"{line}\n" for line in lines).encode())


def write_split_lists(
    clips: Iterable[ClipView],
    path_of: Callable[[str], Path],
    entry_of: Callable[[ClipView], str],
    split_of: Callable[[ClipView], str] = lambda clip: str(clip.value("split")),
    header: str | None = None,
) -> None:
    """A list file for each split, with an entry a row, below a header line where a loader skips the first."""
    lists: dict[str, list[str]] = {}
    for clip in clips:
        lists.setdefault(split_of(clip), [] if header is None else [header]).append(entry_of(clip))
    for split, entries in lists.items():
        write_lines(path_of(split), entries)


def npy_bytes(values: NDArray[Any]) -> bytes:
    """An array as a .npy file, without pickles."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def wav_bytes(clip: ClipView) -> bytes:
    """The row's sound as a WAV file: 16 kHz, 16 bit, mono, T*640 samples. LeftOutError without sound."""
    pcm = clip.audio()
    if pcm is None:
        raise LeftOutError("no sound")
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def transcript_of(clip: ClipView) -> str:
    """The words spoken in the row, on one line. Raises LeftOutError where they are not known."""
    transcript = clip.value("transcript")
    if not transcript or not transcript.strip():
        raise LeftOutError("no transcript")
    return " ".join(transcript.split())


def features_of(clip: ClipView, extractor_id: str) -> F32:
    """The row's features [M,D] float32. LeftOutError where it has none, StoreError for an unknown name."""
    values = clip.features(extractor_id)
    if values is None:
        raise LeftOutError(f"no {extractor_id} features")
    return np.asarray(values, np.float32)


def pictures_of(clip: ClipView, raw: Path | None) -> Pictures:
    """The row's pictures: the stored face crops, or with `raw` whole frames of its source, 25 a second.

    raw: the folder that the data set was prepared from. While frames are taken, LeftOutError is raised where
    the source is not there, is not the file that was prepared, or can no longer be read.
    """
    landmarks, boxes = clip.column("landmarks_px"), clip.column("boxes_px")
    if raw is None:
        matrices, size = clip.column("crop_matrix"), int(clip.value("face_size_px"))
        corners = to_crop(boxes.reshape(-1, 2, 2), matrices)  # the crop may be turned: keep an upright box
        upright = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        frames = (clip.frames([t])[0] for t in range(clip.num_frames))
        return Pictures(frames, size, size, to_crop(landmarks, matrices), upright)
    width, height = int(clip.value("source_width_px")), int(clip.value("source_height_px"))
    return Pictures(_source_frames(clip, raw), width, height, landmarks, boxes)


def _source_frames(clip: ClipView, raw: Path) -> Iterator[U8]:
    path = source_path(raw, str(clip.value("source")))
    first, stop, seen = int(clip.value("start_frame")), int(clip.value("start_frame")) + clip.num_frames, 0
    try:
        if sha256_file(path) != clip.value("source_sha256"):
            raise LeftOutError("the source is another file than the one prepared")
        for chunk in open_video(path).chunks():
            yield from chunk[max(0, first - seen) : max(0, stop - seen)]
            seen += len(chunk)
            if seen >= stop:
                return
    except OSError as error:
        raise LeftOutError("the source is not there") from error
    except ClipError as error:
        raise LeftOutError(f"the source can no longer be read ({error.reason})") from error
    raise LeftOutError("the source is shorter than it was")
