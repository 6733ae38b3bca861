"""Tiny AV-HuBERT checkpoints that were never trained, so that demo and tests run the whole path without a
download."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np
import torch

from syncdiff.pipeline.avhubert.checkpoint import Checkpoint, save_safetensors, tensors_sha256
from syncdiff.pipeline.avhubert.decoder import SPECIAL_SYMBOLS
from syncdiff.pipeline.avhubert.lip_reader import WORD_START
from syncdiff.pipeline.records import F32

WIDTH, FFN_WIDTH, LAYERS, HEADS = 64, 128, 3, 4
AUDIO_DIM = 104
CONV_POS, CONV_POS_GROUPS = 128, 16
STEM_CHANNELS, STAGE_CHANNELS = 8, (8, 16, 16, 32)
DECODER_LAYERS = 2
VOCABULARY = (
    *SPECIAL_SYMBOLS,
    *string.ascii_lowercase,
    *(WORD_START + letter for letter in string.ascii_lowercase),
)
_MODEL = {
    "_name": "av_hubert",
    "encoder_layers": LAYERS,
    "encoder_embed_dim": WIDTH,
    "encoder_ffn_embed_dim": FFN_WIDTH,
    "encoder_attention_heads": HEADS,
    "audio_feat_dim": AUDIO_DIM,
    "conv_pos": CONV_POS,
    "conv_pos_groups": CONV_POS_GROUPS,
    "layer_norm_first": True,
    "modality_fuse": "concat",
}
_TASK = {"normalize": True, "stack_order_audio": 4}


def make_tiny_checkpoint(path: Path, seed: int = 0) -> Path:
    """Writes a pre-norm encoder of 3 layers of 64 with a narrow video front end as `.safetensors`; 0.85 MB.

    The same seed gives the same file. Its features depend on sound and picture but mean nothing; it is marked
    `untrained`, and so is everything made with it.
    """
    return _write(path, _shapes(), {"model": _MODEL, "task": _TASK}, seed)


def make_tiny_lip_reader(path: Path, seed: int = 0) -> Path:
    """Writes the same encoder with a decoder of 2 layers behind it, as a checkpoint fine-tuned to read lips
    has them; 1.4 MB. It spells nonsense in single letters, and is marked `untrained`."""
    decoder = {
        "_name": "av_hubert_seq2seq",
        "decoder_layers": DECODER_LAYERS,
        "decoder_embed_dim": WIDTH,
        "decoder_ffn_embed_dim": FFN_WIDTH,
        "decoder_attention_heads": HEADS,
        "decoder_normalize_before": True,
        "share_decoder_input_output_embed": True,
        "w2v_args": {"model": _MODEL, "task": _TASK},
    }
    shapes = {f"encoder.w2v_model.{name}": shape for name, shape in _shapes().items()} | _decoder_shapes()
    return _write(path, shapes, {"model": decoder}, seed, VOCABULARY)


def _write(
    path: Path,
    shapes: dict[str, tuple[int, ...]],
    config: dict[str, Any],
    seed: int,
    vocabulary: tuple[str, ...] = (),
) -> Path:
    rng = np.random.default_rng(seed)
    state = {name: torch.from_numpy(_fill(rng, name, shape)) for name, shape in shapes.items()}
    sha256 = tensors_sha256(state)
    checkpoint = Checkpoint(state, config, "safetensors", path.name, sha256, 0, True, vocabulary)
    save_safetensors(checkpoint, path)
    return path


def _shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes as in the original's state dict."""
    shapes = _linear("feature_extractor_audio.proj", WIDTH, AUDIO_DIM)
    shapes |= _linear("feature_extractor_video.proj", WIDTH, STAGE_CHANNELS[-1])
    shapes |= {f"feature_extractor_video.resnet.{name}": shape for name, shape in _frontend_shapes().items()}
    shapes |= _norm("layer_norm", 2 * WIDTH) | _linear("post_extract_proj", WIDTH, 2 * WIDTH)
    shapes |= {
        "encoder.pos_conv.0.bias": (WIDTH,),
        "encoder.pos_conv.0.weight_g": (1, 1, CONV_POS),
        "encoder.pos_conv.0.weight_v": (WIDTH, WIDTH // CONV_POS_GROUPS, CONV_POS),
    }
    for index in range(LAYERS):
        shapes |= _layer_shapes(f"encoder.layers.{index}", "self_attn")
    return shapes | _norm("encoder.layer_norm", WIDTH)


def _decoder_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"decoder.embed_tokens.weight": (len(VOCABULARY), WIDTH)}
    for index in range(DECODER_LAYERS):
        shapes |= _layer_shapes(f"decoder.layers.{index}", "self_attn", "encoder_attn")
    return shapes | _norm("decoder.layer_norm", WIDTH)


def _layer_shapes(layer: str, *attentions: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for attention in attentions:
        for which in ("k", "v", "q", "out"):
            shapes |= _linear(f"{layer}.{attention}.{which}_proj", WIDTH, WIDTH)
        shapes |= _norm(f"{layer}.{attention}_layer_norm", WIDTH)
    shapes |= _linear(f"{layer}.fc1", FFN_WIDTH, WIDTH) | _linear(f"{layer}.fc2", WIDTH, FFN_WIDTH)
    return shapes | _norm(f"{layer}.final_layer_norm", WIDTH)


def _frontend_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"frontend3D.0.weight": (STEM_CHANNELS, 1, 5, 7, 7)}
    shapes |= _batch_norm("frontend3D.1", STEM_CHANNELS) | {"frontend3D.2.weight": (STEM_CHANNELS,)}
    inputs = STEM_CHANNELS
    for stage, outputs in enumerate(STAGE_CHANNELS, 1):
        for block in range(2):
            name = f"trunk.layer{stage}.{block}"
            shapes |= {f"{name}.conv1.weight": (outputs, inputs, 3, 3)}
            shapes |= {f"{name}.conv2.weight": (outputs, outputs, 3, 3)}
            shapes |= _batch_norm(f"{name}.bn1", outputs) | _batch_norm(f"{name}.bn2", outputs)
            shapes |= {f"{name}.relu1.weight": (outputs,), f"{name}.relu2.weight": (outputs,)}
            if block == 0 and stage > 1:  # the stage halves the picture
                shapes |= {f"{name}.downsample.0.weight": (outputs, inputs, 1, 1)}
                shapes |= _batch_norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    return shapes


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _batch_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return _norm(name, width) | {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}


def _fill(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> F32:
    """Weights N(0, 1/fan_in), normalisation and slopes near their usual starting points."""
    if name.endswith("running_var"):
        return np.ones(shape, np.float32)
    if name.endswith(("bias", "running_mean")):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:
        return np.full(
            shape, 0.25 if ".relu" in name or name.endswith("frontend3D.2.weight") else 1.0, np.float32
        )
    scale = 1 / np.sqrt(np.prod(shape[1:]))
    values: F32 = (scale * rng.standard_normal(shape)).astype(np.float32)
    return values
