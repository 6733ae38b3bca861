"""Drawn rows for the tests of the report: a schematic face, and data sets of it made in a moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from syncdiff.pipeline.faces.align import crop_matrices, to_crop
from syncdiff.pipeline.media.flac import encode_flac
from syncdiff.pipeline.media.images import encode_jpeg, encode_mask
from syncdiff.pipeline.plan import RunIdentity, ShardPlan
from syncdiff.pipeline.records import SAMPLES_PER_FRAME, Clip, Features, Reject
from syncdiff.pipeline.store.manifest import ShardResult
from syncdiff.pipeline.store.paths import StorePaths
from syncdiff.pipeline.store.prep_run import PrepRun
from syncdiff.pipeline.store.schema import CLIP_SCHEMA, feature_schema
from syncdiff.pipeline.store.write import ShardWriter, feature_record

SIZE = 64
NASTY = "a'\"b<script>alert(1)</script>\n-é名\u202e.mp4"


def _face_points(frames: int, opening: float = 0.1) -> np.ndarray[Any, Any]:
    """68 points of a schematic frontal face [T,68,2], eyes 50 px apart, in a picture of 200 x 160."""
    angle = np.linspace(0, np.pi, 17)
    points = np.zeros((68, 2))
    points[:17] = np.stack([100 - 50 * np.cos(angle), 65 + 65 * np.sin(angle)], 1)
    points[17:27] = np.stack([np.linspace(58, 142, 10), np.full(10, 52)], 1)
    points[27:31] = np.stack([np.full(4, 100), np.linspace(65, 88, 4)], 1)
    points[31:36] = np.stack([np.linspace(90, 110, 5), np.full(5, 93)], 1)
    around = np.arange(6) * np.pi / 3 + np.pi
    for first, x in ((36, 75), (42, 125)):
        points[first : first + 6] = np.stack([x + 8 * np.cos(around), 65 + 3 * np.sin(around)], 1)
    for first, count, size in ((48, 12, 1.0), (60, 8, 0.7)):
        turn = np.arange(count) * 2 * np.pi / count + np.pi
        height = 50 * opening / 2 + (6 if size == 1 else 0)
        points[first : first + count] = np.stack(
            [100 + 20 * size * np.cos(turn), 108 + height * np.sin(turn)], 1
        )
    return np.repeat(points[None], frames, 0).astype(np.float32)


def _make_record(clip_id: str, frames: int = 30, *, sound: bool = True, **columns: Any) -> dict[str, Any]:
    """A clip row of a drawn face whose mouth opens and shuts; any column may be replaced."""
    points = _face_points(frames)
    matrices = crop_matrices(points, SIZE)
    crop = np.full((SIZE, SIZE, 3), (60, 90, 120), np.uint8)
    jaw = np.rint(to_crop(points, matrices)[0, :17]).astype(np.int32)
    cv2.fillConvexPoly(crop, jaw, (200, 160, 140))
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[SIZE // 2 :] = True
    opening = (0.2 + 0.2 * np.sin(np.arange(frames) * 0.8)).astype(np.float32)
    pcm = np.repeat((3000 * opening).astype(np.int16), SAMPLES_PER_FRAME)
    box = np.array([50, 40, 150, 140], np.float32)
    record = {
        "clip_id": clip_id, "start_frame": 0, "split": "train", "speaker_id": None, "transcript": None,
        "words": None, "source": f"{clip_id}.mp4", "source_sha256": "0" * 64, "source_fps": 25.0,
        "source_width_px": 200, "source_height_px": 160, "source_damage": None, "fps": 25.0,
        "num_frames": frames, "face_size_px": SIZE, "frames": [encode_jpeg(crop)] * frames,
        "mouth_masks": [encode_mask(mask)] * frames, "mouth_rois": None,
        "boxes_px": np.repeat(box[None], frames, 0), "landmarks_px": points,
        "detection_scores": np.ones(frames, np.float32), "detected": np.ones(frames, bool),
        "crop_matrix": matrices, "head_pose_deg": np.zeros((frames, 3), np.float32), "mouth_opening": opening,
        "pose_index": np.arange(-1, frames - 1, dtype=np.int32),
        "identity_index": np.full((frames, 2), -1, np.int32),
        "audio_flac": encode_flac(pcm) if sound else None, "audio_padded_samples": 0 if sound else None,
        "interocular_px": 50.0, "sharpness": 80.0, "coverage": 1.0, "num_faces": 1,
        "av_lag_frames": 0 if sound else None, "av_correlation": 0.9 if sound else None,
    }  # fmt: skip
    return {**record, **columns}


def _write_store(
    root: Path,
    records: list[dict[str, Any]],
    rejects: tuple[Reject, ...] = (),
    extractor: dict[str, Any] | None = None,
) -> Path:
    """A finished data set of these rows in shards of five, its rejects in the last shard."""
    clips = [Clip(r["clip_id"], Path("x"), r["source"], r["split"]) for r in records]
    parts = [records[i : i + 5] for i in range(0, len(records), 5)] or [[]]
    plans = tuple(ShardPlan(f"train-{k:05d}", "train", ()) for k in range(len(parts)))
    run = PrepRun(
        root, RunIdentity.of("folder", {"mask": {"kind": "lower-half"}}, {"numpy": "1"}, clips, 0), plans
    )
    paths = StorePaths(root)
    with run.started():
        for plan, part in zip(plans, parts, strict=True):
            with ShardWriter(paths.clips(plan.name), CLIP_SCHEMA, 100_000) as writer:
                for record in part:
                    writer.add(record)
                entry = writer.finish(root)
            features = {}
            if extractor is not None:
                name = extractor["id"]
                with ShardWriter(paths.features(name, plan.name), feature_schema(name, 4, 25.0)) as writer:
                    for record in part:
                        num_frames = record["num_frames"]
                        values = Features(name, np.zeros((num_frames, 4), np.float32), 25.0)
                        writer.add(feature_record(record["clip_id"], num_frames, values))
                    features[name] = writer.finish(root)
            frames = sum(r["num_frames"] for r in part)
            own = rejects if plan is plans[-1] else ()
            run.record(
                ShardResult(plan.name, "train", len(part) + len(own), len(part), frames, entry, features, own)
            )
        run.finish([])
    if extractor is not None:
        paths.extractor(extractor["id"]).write_text(json.dumps(extractor))
    return root


@pytest.fixture(scope="session")
def face_points() -> Callable[..., np.ndarray[Any, Any]]:
    """face_points(frames): 68 points of a schematic frontal face [T,68,2], eyes 50 px apart, in 200 x 160."""
    return _face_points


@pytest.fixture(scope="session")
def make_record() -> Callable[..., dict[str, Any]]:
    """make_record(clip_id, frames, sound=True, **columns): a clip row of a drawn face."""
    return _make_record


@pytest.fixture(scope="session")
def write_store() -> Callable[..., Path]:
    """write_store(root, records, rejects, extractor): a finished data set of these rows."""
    return _write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve ordinary rows, one silent, one that stands out in everything, two kinds of rejects."""
    odd = {
        "coverage": 0.6, "sharpness": 3.0, "num_faces": 3, "av_lag_frames": 9, "av_correlation": 0.7,
        "interocular_px": 12.0, "source_damage": "error while decoding <MB>", "speaker_id": "s<1>",
        "transcript": "IF A < B & C", "detected": np.arange(30) % 5 > 0,
    }  # fmt: skip
    records = [_make_record(f"folder/train/{k:02d}") for k in range(12)]
    records.append(_make_record("folder/train/silent", sound=False))
    records.append(_make_record("folder/train/odd", **odd))
    rejects = (
        *(
            Reject(f"{k}.mp4", f"folder/train/r{k}", "train", "track", "no-face", "no face found")
            for k in range(4)
        ),
        Reject(NASTY, "folder/train/nasty", "train", "media", "read-error", "<b>lost</b>", True),
    )
    extractor = {"id": "net", "kind": "avhubert", "source": "AV-HuBERT", "width": 4, "rate_hz": 25.0,
                 "checkpoint": "tiny.pt", "untrained": True}  # fmt: skip
    return _write_store(tmp_path_factory.mktemp("store"), records, rejects, extractor)
