"""The columns of the store, written down once: names, Arrow types, units, meanings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

SCHEMA_VERSION = 1
_VERSION_KEY = b"syncdiff.schema_version"


@dataclass(frozen=True)
class Column:
    """A column: its Arrow type, unit ("" for none), meaning, and whether it may be null."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    nullable: bool = False

    def field(self) -> pa.Field:
        return pa.field(self.name, self.type, self.nullable, {"unit": self.unit, "description": self.meaning})


def _per_frame(*shape: int) -> pa.DataType:
    """A list over frames of float32, each a flat vector of the product of `shape`."""
    return pa.list_(pa.list_(pa.float32(), int(np.prod(shape))) if shape else pa.float32())


_WORD = pa.struct([("word", pa.string()), ("start_s", pa.float32()), ("end_s", pa.float32())])

CLIP_COLUMNS: tuple[Column, ...] = (
    Column("clip_id", pa.string(), "", "`<layout>/<split>/<path without suffix>`, then `#k` for the k-th face, `@f` for a start at frame f > 0"),
    Column("start_frame", pa.int32(), "frames at 25 fps", "where the row begins in its source"),
    Column("split", pa.string(), "", "train, val, test, or what the data set calls it"),
    Column("speaker_id", pa.string(), "", "the data set's name for the speaker", nullable=True),
    Column("transcript", pa.string(), "", "the words spoken in the row; null where not known for exactly this stretch", nullable=True),
    Column("words", pa.list_(_WORD), "s", "words with start and end, counted from the row's start", nullable=True),
    Column("source", pa.string(), "", "path of the video below the data set's root"),
    Column("source_sha256", pa.string(), "", "hash of the source file"),
    Column("source_fps", pa.float32(), "frames/s", "average frame rate of the source"),
    Column("source_width_px", pa.int32(), "px", "width of the picture, rotation and pixel shape applied"),
    Column("source_height_px", pa.int32(), "px", "height of the picture, rotation and pixel shape applied"),
    Column("source_damage", pa.string(), "", "what ffmpeg said of a source that is damaged but usable; null where nothing", nullable=True),
    Column("fps", pa.float32(), "frames/s", "always 25"),
    Column("num_frames", pa.int32(), "frames", "T, the length of every per-frame column"),
    Column("face_size_px", pa.int32(), "px", "N, the side of a crop"),
    Column("frames", pa.list_(pa.binary()), "", "T JPEG images N x N, the aligned face"),
    Column("mouth_masks", pa.list_(pa.binary()), "", "T 1-bit PNG images N x N, white where the mouth is to be redrawn"),
    Column("mouth_rois", pa.list_(pa.binary()), "", "T grey JPEG images 96 x 96, the mouth as AV-HuBERT cuts it", nullable=True),
    Column("boxes_px", _per_frame(4), "source px", "face box x0, y0, x1, y1"),
    Column("landmarks_px", _per_frame(68, 2), "source px", "68 points (iBUG 300-W order) as x0, y0, x1, y1, ..."),
    Column("detection_scores", _per_frame(), "", "the detector's confidence, carried between detections"),
    Column("detected", pa.list_(pa.bool_()), "", "false where the face was interpolated over a gap"),
    Column("crop_matrix", _per_frame(2, 3), "", "similarity from source pixels to crop pixels, 2 x 3 row by row"),
    Column("head_pose_deg", _per_frame(3), "degrees", "pitch (up +), yaw (to the picture's right +), roll (clockwise +)"),
    Column("mouth_opening", _per_frame(), "interocular distances", "inner-lip distance"),
    Column("pose_index", pa.list_(pa.int32()), "row frame", "the pose frame of each frame, -1 for none"),
    Column("identity_index", pa.list_(pa.list_(pa.int32())), "row frame", "K reference frames of each frame, best first, -1 for none"),
    Column("audio_flac", pa.binary(), "", "16 kHz mono FLAC of exactly T x 640 samples; null where the source has no sound", nullable=True),
    Column("audio_padded_samples", pa.int32(), "samples", "zeros added at the end because the sound was shorter; null without sound", nullable=True),
    Column("interocular_px", pa.float32(), "source px", "median distance between the eye centres"),
    Column("sharpness", pa.float32(), "", "median variance of the Laplacian of the grey crop"),
    Column("coverage", pa.float32(), "share", "share of frames in which the face was detected rather than interpolated"),
    Column("num_faces", pa.int32(), "", "faces tracked in the same shot"),
    Column("av_lag_frames", pa.int32(), "frames", "time of the sound minus time of the picture at the best correlation", nullable=True),
    Column("av_correlation", pa.float32(), "", "mouth opening against loudness at that lag", nullable=True),
)  # fmt: skip

REJECT_COLUMNS: tuple[Column, ...] = (
    Column("source", pa.string(), "", "path of the input below the data set's root"),
    Column("clip_id", pa.string(), "", "the id its row would have had"),
    Column("split", pa.string(), "", "its split"),
    Column("stage", pa.string(), "", "the stage that gave up"),
    Column("reason", pa.string(), "", "short name of the reason"),
    Column("detail", pa.string(), "", "the reason in a sentence"),
    Column("transient", pa.bool_(), "", "true where trying again may help; the same command tries again"),
)


def _schema(columns: Iterable[Column], metadata: Mapping[bytes, bytes] | None = None) -> pa.Schema:
    return pa.schema(
        [c.field() for c in columns], {_VERSION_KEY: str(SCHEMA_VERSION).encode(), **(metadata or {})}
    )


CLIP_SCHEMA = _schema(CLIP_COLUMNS)
REJECT_SCHEMA = _schema(REJECT_COLUMNS)


def feature_schema(extractor_id: str, width: int, rate_hz: float, dtype: str = "float32") -> pa.Schema:
    """Schema of one extractor's shards: values are M steps of `width` numbers, `rate_hz` steps a second."""
    value = {"float32": pa.float32(), "float16": pa.float16()}[dtype]
    columns = (
        Column("clip_id", pa.string(), "", "same rows in the same order as the clip shard"),
        Column("num_frames", pa.int32(), "frames", "T of the clip row"),
        Column("padded_steps", pa.int32(), "steps", "zero steps added at the end to fit the clip; negative: steps cut off"),
        Column("values", pa.list_(pa.list_(value, width)), "", f"M steps of {width} values", nullable=True),
    )  # fmt: skip
    return _schema(
        columns,
        {b"syncdiff.extractor_id": extractor_id.encode(), b"syncdiff.rate_hz": repr(float(rate_hz)).encode()},
    )


def check_version(schema: pa.Schema, path: Path) -> None:
    """Raise ValueError if a shard was written by another version of the schema, or by something else."""
    version = (schema.metadata or {}).get(_VERSION_KEY)
    if version is None:
        raise ValueError(f"{path}: not a syncdiff shard (its metadata has no schema version)")
    if int(version) != SCHEMA_VERSION:
        raise ValueError(f"{path}: schema version {int(version)}, this program reads {SCHEMA_VERSION}")
