"""Checkpoints as inert data: tensors by name, and the configuration as plain containers.

Reads what `torch.save` wrote (fairseq's checkpoints among them) without running anything in it, and
`.safetensors` files of this project's own, which carry the configuration, and the name and hash of the file
that they were made from.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.records import CheckpointError
from syncdiff.pipeline.weights.torch_file import read_torch_file

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "EncoderWeights",
    "convert",
    "find_encoder",
    "read_checkpoint",
    "save_safetensors",
    "tensors_sha256",
]

METADATA_KEY = "syncdiff"

# Where fairseq's av_hubert, av_hubert_seq2seq and av_hubert_ctc keep the encoder
_ENCODER_PREFIXES = ("", "encoder.w2v_model.", "w2v_encoder.w2v_model.")
_FIRST_LAYER = "encoder.layers.0.self_attn.q_proj.weight"
_ENCODER_KEYS = {"encoder_layers", "encoder_embed_dim", "audio_feat_dim", "modality_fuse"}


@dataclass(frozen=True)
class Checkpoint:
    """A file's tensors and configuration.

    `kind` is torch-zip, torch-legacy or safetensors. `name`, `sha256` and `size_bytes` are the original
    file's: for a converted one, of the file it was made from. `untrained` marks weights that were never
    trained. `vocabulary`: the symbols that a decoder writes, where the file holds them.
    """

    state: dict[str, Tensor]
    config: dict[str, Any]
    kind: str
    name: str
    sha256: str
    size_bytes: int
    untrained: bool = False
    vocabulary: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncoderWeights:
    """An AV-HuBERT encoder: its tensors under the names of the pretrained form, the `model` and `task`
    sections of its own configuration, and the checkpoint it is from."""

    state: dict[str, Tensor]
    model: dict[str, Any]
    task: dict[str, Any]
    checkpoint: Checkpoint


def read_checkpoint(path: Path, *, prefer_converted: bool = True) -> Checkpoint:
    """Reads `path`, or rather the `.safetensors` beside it that `convert` made from it, where there is one.

    Raises CheckpointError, with a sentence that says what is wrong, for a file that is missing, cut short, of
    another kind, or that tries to run code.
    """
    path = Path(path)
    converted = path.with_suffix(".safetensors")
    if prefer_converted and path != converted and _is_made_from(converted, path):
        path = converted
    if not path.is_file():
        raise CheckpointError(f"{path} {'is not a regular file' if path.exists() else 'does not exist'}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    file = read_torch_file(path)
    sha256, size = sha256_file(path), path.stat().st_size
    return Checkpoint(file.state, file.config, file.kind, path.name, sha256, size, vocabulary=file.vocabulary)


def find_encoder(checkpoint: Checkpoint) -> EncoderWeights:
    """The AV-HuBERT encoder in a pretrained or a fine-tuned checkpoint.

    A fine-tuned checkpoint keeps the encoder under a prefix, and the encoder's configuration under
    `cfg.model.w2v_args`. Raises CheckpointError where tensors or configuration are missing.
    """
    prefix = next((p for p in _ENCODER_PREFIXES if p + _FIRST_LAYER in checkpoint.state), None)
    if prefix is None:
        some = ", ".join(list(checkpoint.state)[:3])
        raise CheckpointError(f"{checkpoint.name} holds no AV-HuBERT encoder; its tensors begin with {some}")
    config = checkpoint.config if prefix == "" else _encoder_config(checkpoint.config)
    flat = {"model": config, "task": config}  # an argparse Namespace has no sections
    sections = config if "model" in config else flat
    model, task = sections["model"], sections.get("task")
    if not isinstance(model, dict) or not (model.get("_name") == "av_hubert" or _ENCODER_KEYS & model.keys()):
        raise CheckpointError(f"{checkpoint.name} does not say how its encoder is built")
    state = {n.removeprefix(prefix): tensor for n, tensor in checkpoint.state.items() if n.startswith(prefix)}
    return EncoderWeights(state, model, task if isinstance(task, dict) else {}, checkpoint)


def convert(source: Path, target: Path | None = None) -> Path:
    """Writes the encoder of a checkpoint, and its configuration, as `.safetensors` (default: beside
    `source`).

    Decoder and optimiser are left out. Raises CheckpointError as `read_checkpoint` and `find_encoder` do.
    """
    weights = find_encoder(read_checkpoint(source, prefer_converted=False))
    origin = weights.checkpoint
    kept = Checkpoint(
        weights.state,
        {"model": weights.model, "task": weights.task},
        "safetensors",
        origin.name,
        origin.sha256,
        origin.size_bytes,
        origin.untrained,
    )
    target = target or Path(source).with_suffix(".safetensors")
    save_safetensors(kept, target)
    return target


def save_safetensors(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a checkpoint as `.safetensors`; its configuration must be plain. Complete or not at all."""
    state = {name: tensor.detach().clone().contiguous() for name, tensor in checkpoint.state.items()}
    about = {
        "config": checkpoint.config,
        "source_name": checkpoint.name,
        "source_sha256": checkpoint.sha256,
        "source_bytes": checkpoint.size_bytes,
        "untrained": checkpoint.untrained,
        "tensors_sha256": tensors_sha256(state),
    }
    if checkpoint.vocabulary:
        about["vocabulary"] = list(checkpoint.vocabulary)
    partial = path.with_name(path.name + ".tmp")
    try:
        save_file(state, partial, metadata={METADATA_KEY: json.dumps(about, sort_keys=True)})
        partial.replace(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} could not be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def tensors_sha256(state: dict[str, Tensor]) -> str:
    """A hash of names, types, shapes and values, whatever their order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _encoder_config(config: dict[str, Any]) -> dict[str, Any]:
    """The encoder's own configuration in that of a fine-tuned checkpoint."""
    model = config.get("model", config)
    inner = model.get("w2v_args") if isinstance(model, dict) else None
    if not isinstance(inner, dict):
        path = model.get("w2v_path") if isinstance(model, dict) else None
        raise CheckpointError(
            "the fine-tuned checkpoint lacks its encoder's configuration (cfg.model.w2v_args); "
            f"it was made from {path}, which has it"
        )
    return inner


def _about(path: Path) -> dict[str, Any]:
    """This project's own metadata of a `.safetensors`, empty in a foreign one; raises CheckpointError."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    except (OSError, SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    types = {"config": dict, "source_name": str, "source_sha256": str, "source_bytes": int, "untrained": bool}
    fits = isinstance(about, dict) and all(isinstance(about.get(key), type_) for key, type_ in types.items())
    symbols = about.get("vocabulary", []) if fits else []
    fits = fits and isinstance(symbols, list) and all(isinstance(symbol, str) for symbol in symbols)
    if about != {} and not fits:
        raise CheckpointError(f"{path} has metadata that this program did not write")
    return dict(about)


def _is_made_from(converted: Path, original: Path) -> bool:
    """Whether `converted` was made from `original` as it is now, or from a file of that name that is gone."""
    if not converted.is_file():
        return False
    try:
        about = _about(converted)
    except CheckpointError:
        return False
    if about.get("source_name") != original.name:
        return False
    if not original.exists():
        return True
    newer = converted.stat().st_mtime >= original.stat().st_mtime
    return newer and about.get("source_bytes") == original.stat().st_size


def _read_safetensors(path: Path) -> Checkpoint:
    about = _about(path)
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    if not about:
        return Checkpoint(state, {}, "safetensors", path.name, sha256_file(path), path.stat().st_size)
    if about.get("tensors_sha256") != tensors_sha256(state):
        raise CheckpointError(f"{path} is damaged: its numbers are not those that were written")
    return Checkpoint(
        state,
        about["config"],
        "safetensors",
        about["source_name"],
        about["source_sha256"],
        about["source_bytes"],
        about["untrained"],
        tuple(about.get("vocabulary", ())),
    )
