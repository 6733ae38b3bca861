"""What an extractor of features is, and AV-HuBERT as one.

Another extractor is a class with the members of `Extractor`: see `syncdiff.pipeline.features.whisper` for a
short one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from syncdiff.pipeline.avhubert.checkpoint import Checkpoint
from syncdiff.pipeline.avhubert.encoder import AVHubertEncoder, LayerChoice, Modality, prepare_for_inference
from syncdiff.pipeline.avhubert.inputs import extract, prepare_audio, prepare_video
from syncdiff.pipeline.avhubert.load import load_encoder
from syncdiff.pipeline.features.extractor import ExtractorInput, stored_as
from syncdiff.pipeline.records import F32, FPS, Features

COMPUTE_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class AVHubertExtractor:
    """AV-HuBERT features of sound, mouth pictures or both; made by `load_avhubert`."""

    encoder: AVHubertEncoder
    checkpoint: Checkpoint
    modality: Modality
    layer: LayerChoice
    dtype: str
    compute_dtype: str

    kind = "avhubert"
    rate_hz = float(FPS)

    @property
    def id(self) -> str:
        return f"avhubert-{self.modality}-{self.layer}"

    @property
    def width(self) -> int:
        config = self.encoder.config
        return config.width * (config.layers if self.layer == "all" else 1)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"audio", "video"} if self.modality == "both" else {self.modality})

    def describe(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind,
            "checkpoint": {"name": self.checkpoint.name, "sha256": self.checkpoint.sha256},
            "modality": self.modality,
            "layer": self.layer,
            "width": self.width,
            "rate_hz": self.rate_hz,
            "dtype": self.dtype,
            "compute_dtype": self.compute_dtype,
            "untrained": self.checkpoint.untrained,
        }

    def __call__(self, batch: Sequence[ExtractorInput]) -> list[Features]:
        padded = [0] * len(batch)
        audio: list[F32] | None = None
        video: list[F32] | None = None
        if "audio" in self.needs:
            prepared = [self._sound(clip) for clip in batch]
            audio, padded = [steps for steps, _ in prepared], [count for _, count in prepared]
        if "video" in self.needs:
            video = [_mouth(clip) for clip in batch]
        values = extract(self.encoder, audio, video, self.layer) if batch else []
        return [
            Features(self.id, stored_as(array, self.dtype), self.rate_hz, count)
            for array, count in zip(values, padded, strict=True)
        ]

    def _sound(self, clip: ExtractorInput) -> tuple[F32, int]:
        if clip.pcm16 is None:
            raise ValueError(f"{self.id} needs sound, and a clip has none")
        return prepare_audio(clip.pcm16, clip.num_frames, layer_norm=self.encoder.config.audio_layer_norm)


def load_avhubert(
    checkpoint: Path,
    modality: Modality = "audio",
    layer: LayerChoice = "final",
    *,
    dtype: str = "float32",
    compute_dtype: str = "float32",
    device: str = "cpu",
) -> AVHubertExtractor:
    """An AV-HuBERT extractor from a checkpoint of the original or one converted to `.safetensors`.

    Values are computed in `compute_dtype` (float32, bfloat16; float16 on GPUs) and stored as `dtype` (float16
    or float32). Raises CheckpointError as `load_encoder` does, ValueError for a layer that does not exist.
    """
    if compute_dtype not in COMPUTE_DTYPES or dtype not in ("float16", "float32"):
        raise ValueError(f"unknown number type: computed in {compute_dtype}, stored as {dtype}")
    encoder, weights = load_encoder(checkpoint, modality)
    encoder.check_layer(layer)
    prepare_for_inference(encoder, COMPUTE_DTYPES[compute_dtype], device)
    return AVHubertExtractor(encoder, weights.checkpoint, modality, layer, dtype, compute_dtype)


def _mouth(clip: ExtractorInput) -> F32:
    if clip.mouth_rois is None or len(clip.mouth_rois) != clip.num_frames:
        raise ValueError("video features need a mouth picture for every frame")
    return prepare_video(clip.mouth_rois)
