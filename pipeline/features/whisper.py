"""Whisper and wav2vec 2.0 as extractors, through `transformers` (`pip install 'syncdiff[whisper]'`).

Models are read from a folder on disk, as `save_pretrained` writes it: never from the network, never a pickle,
never code that comes with a model.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from syncdiff.pipeline.features.builtin import fit_length
from syncdiff.pipeline.features.extractor import ExtractorInput, stored_as
from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.records import F32, FPS, I16, SAMPLE_RATE_HZ, CheckpointError, Features

# Radford et al. 2022: log-mel every 10 ms, halved by the encoder's second convolution
WHISPER_STEP_SAMPLES = 320
_CLASSES = {
    "whisper": "WhisperModel",
    "wav2vec2": "Wav2Vec2Model",
    "hubert": "HubertModel",
    "wavlm": "WavLMModel",
}


@dataclass(frozen=True)
class SpeechModel:
    """A speech encoder of `transformers`; made by `load_speech_model`.

    `grid` frames averages the model's steps (50 a second) that begin within each video frame; native keeps
    them. `sha256` is that of the weights; of several files, in the order of their names.
    """

    model: Any  # of transformers, which says nothing of types
    kind: str
    name: str
    sha256: str
    layer: int | Literal["final"]
    grid: Literal["frames", "native"]
    step_samples: int
    dtype: str = "float32"

    needs = frozenset({"audio"})

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.name}-{self.layer}" + ("-native" if self.grid == "native" else "")

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def rate_hz(self) -> float:
        return float(FPS) if self.grid == "frames" else SAMPLE_RATE_HZ / self.step_samples

    def describe(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind,
            "checkpoint": {"name": self.name, "sha256": self.sha256},
            "layer": self.layer,
            "grid": self.grid,
            "width": self.width,
            "rate_hz": self.rate_hz,
            "dtype": self.dtype,
            "untrained": False,
        }

    def __call__(self, batch: Sequence[ExtractorInput]) -> list[Features]:
        """Features of each clip; one clip at a time, since padding would change wav2vec 2.0's group norm."""
        encode = _whisper_steps if self.kind == "whisper" else _wav2vec2_steps
        features = []
        for clip in batch:
            if clip.pcm16 is None or not len(clip.pcm16):
                raise ValueError(f"{self.id} needs sound, and a clip has none")
            with torch.inference_mode():
                steps = encode(self.model, clip.pcm16, self.layer)
            if self.grid == "frames":  # the means of the steps within each frame, of fewer at the tail
                count = round(SAMPLE_RATE_HZ / FPS / self.step_samples)
                starts = np.arange(0, len(steps), count)
                sums = np.add.reduceat(steps, starts, axis=0)
                steps = (sums / np.minimum(count, len(steps) - starts)[:, None]).astype(np.float32)
            values, padded = fit_length(steps, round(clip.num_frames * self.rate_hz / FPS))
            features.append(Features(self.id, stored_as(values, self.dtype), self.rate_hz, padded))
        return features


def load_speech_model(
    folder: Path,
    layer: int | Literal["final"] = "final",
    *,
    grid: Literal["frames", "native"] = "frames",
    dtype: str = "float32",
    device: str = "cpu",
) -> SpeechModel:
    """The encoder in a folder with config.json and safetensors: Whisper, wav2vec 2.0, HuBERT or WavLM.

    `layer` counts from 1 as in `hidden_states` of transformers. Raises CheckpointError for a folder without
    such a model and where transformers is not installed, ValueError for a layer that does not exist.
    """
    if importlib.util.find_spec("transformers") is None:
        raise CheckpointError("this extractor needs transformers: pip install 'syncdiff[whisper]'")
    config = Path(folder) / "config.json"
    if not config.is_file():
        raise CheckpointError(f"{folder} is no folder with a model (no config.json in it)")
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    if kind not in _CLASSES:
        raise CheckpointError(f"{folder} holds a model of type {kind}; known are {', '.join(_CLASSES)}")
    weights = sorted(Path(folder).glob("*.safetensors"))
    if not weights:
        raise CheckpointError(f"{folder} holds no weights as safetensors; pickled weights are not read")
    import transformers  # an optional extra, and slow to import

    cls = getattr(transformers, _CLASSES[kind])
    model = cls.from_pretrained(folder, local_files_only=True, use_safetensors=True, trust_remote_code=False)
    model = model.eval().requires_grad_(False).to(device)
    layers = model.config.encoder_layers if kind == "whisper" else model.config.num_hidden_layers
    if layer != "final" and not 1 <= layer <= layers:
        raise ValueError(f"layer must be 1 to {layers} or final, got {layer}")
    step = WHISPER_STEP_SAMPLES if kind == "whisper" else model.config.inputs_to_logits_ratio
    if grid == "frames" and SAMPLE_RATE_HZ % (step * FPS):
        raise ValueError(f"steps of {step} samples do not divide a video frame; use the native grid")
    name, sha256 = Path(folder).resolve().name, sha256_file(*weights)
    return SpeechModel(model, kind, name, sha256, layer, grid, step, dtype)


def _hidden(output: Any, layer: int | Literal["final"]) -> torch.Tensor:
    hidden: torch.Tensor = output.last_hidden_state if layer == "final" else output.hidden_states[layer]
    return hidden


def _whisper_steps(model: Any, pcm16: I16, layer: int | Literal["final"]) -> F32:
    """Steps of 20 ms, in windows as long as the model takes (30 s), each padded with silence as in its
    training."""
    import transformers

    config = model.config
    window = config.max_source_positions * WHISPER_STEP_SAMPLES
    make_mel: Any = transformers.WhisperFeatureExtractor
    mel = make_mel(feature_size=config.num_mel_bins, chunk_length=window // SAMPLE_RATE_HZ)
    parts = []
    for start in range(0, len(pcm16), window):
        sound = pcm16[start : start + window].astype(np.float32) / 32768
        features = mel(sound, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").input_features
        output = model.encoder(features.to(model.device), output_hidden_states=layer != "final")
        parts.append(_hidden(output, layer)[0, : -(-len(sound) // WHISPER_STEP_SAMPLES)])
    return torch.cat(parts).float().cpu().numpy()


def _wav2vec2_steps(model: Any, pcm16: I16, layer: int | Literal["final"]) -> F32:
    """Steps of 20 ms; sound normalised to zero mean and unit variance, as the published models expect."""
    sound = pcm16.astype(np.float32) / 32768
    sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    shortest = 1
    for kernel, stride in zip(model.config.conv_kernel[::-1], model.config.conv_stride[::-1], strict=True):
        shortest = (shortest - 1) * stride + kernel  # samples that one step sees
    sound = np.pad(sound, (0, max(0, shortest - len(sound))))
    values = torch.from_numpy(sound)[None].to(model.device)
    output = model(values, output_hidden_states=layer != "final")
    return _hidden(output, layer)[0].float().cpu().numpy()
