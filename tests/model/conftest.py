"""Small data sets, configurations and checkpoints for the model's tests, made in a moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from syncdiff.model.config import TrainConfig, from_mapping
from syncdiff.pipeline.faces.mask import MaskConfig, mouth_masks
from syncdiff.pipeline.faces.reference_frames import PoseConfig, select
from syncdiff.pipeline.features.builtin import SPECS
from syncdiff.pipeline.features.filterbanks import logfbank, wav2lip_mel
from syncdiff.pipeline.media.flac import encode_flac
from syncdiff.pipeline.media.images import encode_jpeg, encode_mask
from syncdiff.pipeline.prep_config import PrepConfig
from syncdiff.pipeline.records import Features, Row
from syncdiff.pipeline.store.schema import CLIP_SCHEMA, feature_schema
from syncdiff.pipeline.store.write import ShardWriter, feature_record

FACE_PX = 48


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def face(opening: float, shift: float, colour: int) -> np.ndarray:
    """A drawn face [48,48,3] with a mouth."""
    picture = np.full((FACE_PX, FACE_PX, 3), 90 + colour, np.uint8)
    cv2.ellipse(picture, (24 + round(shift), 24), (17, 22), 0, 0, 360, (200, 160, 140), -1)
    for x in (17, 31):
        cv2.circle(picture, (x + round(shift), 17), 2, (40, 40, 60), -1)
    cv2.ellipse(picture, (24 + round(shift), 35), (6, 1 + round(5 * opening)), 0, 0, 360, (70, 10, 20), -1)
    return picture


def landmarks(frames: int) -> np.ndarray:
    """Rough landmarks [T,68,2] of the drawn face, in its own pixels."""
    points = np.zeros((68, 2), np.float32)
    angle = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([24 + 16 * np.cos(angle), 24 + 20 * np.sin(angle)], axis=1)
    points[17:36] = np.stack([np.linspace(14, 34, 19), np.linspace(12, 28, 19)], axis=1)
    turn = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    points[36:42] = np.stack([17 + 2 * np.cos(turn), 17 + np.sin(turn)], axis=1)
    points[42:48] = np.stack([31 + 2 * np.cos(turn), 17 + np.sin(turn)], axis=1)
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    points[48:68] = np.stack([24 + 6 * np.cos(turn), 35 + 3 * np.sin(turn)], axis=1)
    wander = np.sin(np.arange(frames) / 5)[:, None, None]
    return (points[None] + wander).astype(np.float32)


def make_row(clip: int, split: str, frames: int, sound: bool, mask: MaskConfig, pose: PoseConfig) -> Row:
    """A clip whose mouth follows its sound."""
    rng = np.random.default_rng([clip, len(split)])
    opening = 0.5 + 0.5 * np.sin(np.arange(frames) / rng.uniform(1.5, 3) + clip)
    level = np.interp(np.arange(frames * 640) / 640, np.arange(frames), opening)
    pcm = (level * 9000 * np.sin(np.arange(frames * 640) * 0.9)).astype(np.int16)
    points = landmarks(frames)
    head = np.stack([np.sin(np.arange(frames) / 7), np.cos(np.arange(frames) / 9), np.zeros(frames)], axis=1)
    chosen = select(
        head.astype(np.float32) * 8, opening.astype(np.float32), np.ones(frames, np.float32), pose
    )
    faces = [face(o, 2 * np.sin(t / 5), 10 * clip) for t, o in enumerate(opening)]
    columns: dict[str, Any] = {field.name: None for field in CLIP_SCHEMA}
    columns |= {
        "clip_id": f"lrs2/{split}/speaker{clip % 2}/{clip:05d}",
        "start_frame": 0,
        "split": split,
        "source": f"main/speaker{clip % 2}/{clip:05d}.mp4",
        "source_sha256": "",
        "source_fps": 25.0,
        "source_width_px": FACE_PX,
        "source_height_px": FACE_PX,
        "fps": 25.0,
        "num_frames": frames,
        "face_size_px": FACE_PX,
        "frames": [encode_jpeg(one) for one in faces],
        "mouth_masks": [encode_mask(one) for one in mouth_masks(points, FACE_PX, mask)],
        "boxes_px": np.tile(np.float32([4, 4, 44, 44]), (frames, 1)),
        "landmarks_px": points,
        "detection_scores": np.ones(frames, np.float32),
        "detected": np.ones(frames, np.bool_),
        "crop_matrix": np.tile(np.eye(2, 3, dtype=np.float32), (frames, 1, 1)),
        "head_pose_deg": chosen.head_pose_deg,
        "mouth_opening": opening.astype(np.float32),
        "pose_index": chosen.pose_index,
        "identity_index": chosen.identity_index,
        "audio_flac": encode_flac(pcm) if sound else None,
        "audio_padded_samples": 0 if sound else None,
        "interocular_px": 14.0,
        "sharpness": 1.0,
        "coverage": 1.0,
        "num_faces": 1,
    }
    features = (
        Features("logfbank", logfbank(pcm)[:frames], 25.0),
        Features("mel", np.ascontiguousarray(wav2lip_mel(pcm).T), 80.0),
    )
    return Row(columns, features if sound else ())


def write_store(
    root: Path,
    splits: dict[str, list[int]] | None = None,
    *,
    silent: tuple[int, ...] = (),
    mask: MaskConfig | None = None,
    pose: PoseConfig | None = None,
    rows_per_group: int = 1,
) -> Path:
    """A prepared data set: `splits` gives each clip's number of frames; clips in `silent` have no sound."""
    mask, pose = mask or MaskConfig(), pose or PoseConfig()
    splits = splits or {"train": [24, 20, 26, 22], "val": [20], "test": [20, 18]}
    shards, clip = [], 0
    for split, lengths in splits.items():
        rows = [
            make_row(clip + k, split, n, clip + k not in silent, mask, pose) for k, n in enumerate(lengths)
        ]
        clip += len(lengths)
        shard = f"{split}-00000"
        with ShardWriter(root / "clips" / f"{shard}.parquet", CLIP_SCHEMA, 1 << 40) as writer:
            for index, row in enumerate(rows):
                writer.add(row.columns)
                if (index + 1) % rows_per_group == 0:
                    writer._flush()
            entries: dict[str, Any] = {"clips": asdict(writer.finish(root)), "features": {}}
        for name in ("logfbank", "mel"):
            spec = SPECS[name]
            schema = feature_schema(name, spec.width, spec.rate_hz)
            with ShardWriter(root / "features" / name / f"{shard}.parquet", schema) as writer:
                for row in rows:
                    features = next((f for f in row.features if f.extractor_id == name), None)
                    columns = row.columns
                    writer.add(feature_record(columns["clip_id"], columns["num_frames"], features))
                entries["features"][name] = asdict(writer.finish(root))
            (root / "features" / name / "extractor.json").write_text(json.dumps(spec.describe()))
        shards.append({"name": shard, "split": split, "frames": sum(lengths), **entries})
    config = PrepConfig(face_size_px=FACE_PX, mask=mask, pose=pose).to_dict()
    manifest = {"layout": "lrs2", "config": config, "features": ["logfbank", "mel"], "shards": shards}
    (root / "dataset.json").write_text(json.dumps(manifest))
    return root


@pytest.fixture(scope="session")
def make_store() -> Callable[..., Path]:
    """`write_store`, which writes a small prepared data set."""
    return write_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small prepared data set. Tests must not change it."""
    return write_store(tmp_path_factory.mktemp("store"))


TINY: dict[str, Any] = {
    "model": {
        "resolution": 32,
        "unet": {
            "channels": [8, 8], "attention": [False, True], "layers_per_block": 1, "heads": 2,
            "cross_width": 8, "norm_groups": 4, "patch": 2,
        },
        "audio": {"features": "logfbank", "window": 5},
        "pose": {"bottleneck": "spatial", "width": 2, "size": 4, "hidden": 4},
    },
    "diffusion": {
        "prediction": "v_prediction", "schedule": "squaredcos_cap_v2", "zero_terminal_snr": True,
        "sampling_steps": 2,
    },
    "loader": {"workers": 0, "frames_per_clip": 4, "window": 2},
    "optim": {"steps": 4, "batch_size": 4, "lr": 1e-3, "warmup_steps": 2, "precision": "no", "device": "cpu"},
    "log": {"every": 1, "checkpoint_every": 100, "sample_every": 0, "keep": 2},
}  # fmt: skip


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with changes, section by section."""
    result = dict(base)
    for key, value in changes.items():
        result[key] = merged(base.get(key, {}), value) if isinstance(value, dict) else value
    return result


@pytest.fixture(scope="session")
def tiny() -> Callable[..., TrainConfig]:
    """The smallest configuration, with changes given as nested dictionaries."""
    return lambda **changes: from_mapping(merged(TINY, changes))


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny AutoencoderKL with random weights that shrinks by 2, in a folder."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("autoencoder")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        layers_per_block=1,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def trained(store: Path, tiny: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps. Tests must not change it."""
    from syncdiff.model.train import train

    out = tmp_path_factory.mktemp("run")
    train(tiny(data=str(store), out=str(out)), lambda text: None)
    return out
