"""From a checkpoint's tensors and configuration to encoder and decoder: what fits, is missing, is called.

Names and defaults on the original's side are those of AV-HuBERT's `hubert.py` and `hubert_pretraining.py`,
and of `TransformerEncoder` in fairseq's `wav2vec2.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from syncdiff.pipeline.avhubert.checkpoint import Checkpoint, EncoderWeights, find_encoder, read_checkpoint
from syncdiff.pipeline.avhubert.decoder import PAD, Decoder, DecoderConfig, sinusoidal_positions
from syncdiff.pipeline.avhubert.encoder import AVHubertEncoder, EncoderConfig, Modality
from syncdiff.pipeline.avhubert.resnet import convert_frontend, frontend_shape
from syncdiff.pipeline.records import CheckpointError

Network = TypeVar("Network", bound=nn.Module)

_FRONT_ENDS = {"audio": "feature_extractor_audio.", "video": "feature_extractor_video."}
# Options of fairseq that this encoder does not have, with the value that stands for their absence
_UNSUPPORTED = {"sub_encoder_layers": 0, "pos_conv_depth": 1, "layer_type": "transformer"}


def load_encoder(path: Path, modality: Modality) -> tuple[AVHubertEncoder, EncoderWeights]:
    """The encoder in a checkpoint file, in float32.

    Raises CheckpointError as `read_checkpoint`, `find_encoder` and `build_encoder` do.
    """
    weights = find_encoder(read_checkpoint(path))
    return build_encoder(weights, modality), weights


def build_encoder(weights: EncoderWeights, modality: Modality) -> AVHubertEncoder:
    """An encoder for this modality; raises CheckpointError where tensors it needs are missing or do not
    fit."""
    name = weights.checkpoint.name
    wanted = ("audio", "video") if modality == "both" else (modality,)
    _check_front_ends(weights.state, name, wanted)
    with _errors_name(name):
        config = encoder_config(weights, wanted)
        tensors = _encoder_tensors(config, weights.state)
    return _filled(lambda: AVHubertEncoder(config), tensors, name)


def build_decoder(checkpoint: Checkpoint) -> Decoder:
    """The decoder of a fine-tuned checkpoint (`av_hubert_seq2seq`); raises CheckpointError as
    `build_encoder`."""
    name, state = checkpoint.name, checkpoint.state
    if "decoder.embed_tokens.weight" not in state:
        raise CheckpointError(f"{name} holds no decoder: it is not a checkpoint fine-tuned to read lips")
    with _errors_name(name):
        config = decoder_config(checkpoint)
        tensors = _decoder_tensors(config, state)
    return _filled(lambda: Decoder(config), tensors, name)


def decoder_config(checkpoint: Checkpoint) -> DecoderConfig:
    """The decoder's configuration, with the defaults of `AVHubertSeq2SeqConfig` in `hubert_asr.py`.

    Raises ValueError for a configuration that is not supported, KeyError where a tensor is missing.
    """
    model = checkpoint.config.get("model", checkpoint.config)
    if not isinstance(model, dict):
        raise ValueError("its configuration does not say how its decoder is built")
    return DecoderConfig(
        layers=model.get("decoder_layers", 6),
        width=model.get("decoder_embed_dim", 768),
        ffn_width=model.get("decoder_ffn_embed_dim", 3072),
        heads=model.get("decoder_attention_heads", 4),
        memory_width=checkpoint.state["decoder.layers.0.encoder_attn.k_proj.weight"].shape[1],
        vocabulary_size=len(checkpoint.state["decoder.embed_tokens.weight"]),
        normalize_before=model.get("decoder_normalize_before", False) is True,
        activation=model.get("activation_fn", "relu"),  # of fairseq's layers: it is not among AV-HuBERT's
        scale_embedding=model.get("no_scale_embedding", True) is False,
        max_positions=model.get("max_target_positions", 2048),
    )


@contextmanager
def _errors_name(checkpoint: str) -> Iterator[None]:
    """Whatever does not fit within is a CheckpointError that names the checkpoint."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(f"{checkpoint} lacks the tensor {error.args[0]}") from None
    except (ValueError, TypeError, RuntimeError) as error:  # RuntimeError: sizes that do not go together
        raise CheckpointError(f"{checkpoint}: {error}") from error


def _filled(build: Callable[[], Network], tensors: Mapping[str, Tensor], name: str) -> Network:
    """A network with these weights in float32; raises CheckpointError where sizes do not fit."""
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        network = build()
    for target, expected in network.state_dict().items():
        if tensors[target].shape != expected.shape:
            size = f"{target} has size {list(tensors[target].shape)}"
            raise CheckpointError(f"{name}: {size}, but its configuration says {list(expected.shape)}")
    network.load_state_dict({n: t.float().contiguous() for n, t in tensors.items()}, assign=True)
    return network.eval().requires_grad_(False)


def encoder_config(weights: EncoderWeights, wanted: tuple[str, ...] = ("audio", "video")) -> EncoderConfig:
    """The encoder's configuration, with the front ends in `wanted`.

    Raises ValueError for a configuration that is not supported, KeyError where a front end's tensor is
    missing.
    """
    model, task, state = weights.model, weights.task, weights.state
    for option, absent in _UNSUPPORTED.items():
        if model.get(option, absent) not in (absent, None):
            raise ValueError(f"{option} = {model[option]} is not supported")
    video = frontend_shape(_frontend(state)) if "video" in wanted else None
    audio_dim = state[f"{_FRONT_ENDS['audio']}proj.weight"].shape[1] if "audio" in wanted else None
    return EncoderConfig(
        layers=model.get("encoder_layers", 12),
        width=model.get("encoder_embed_dim", 768),
        ffn_width=model.get("encoder_ffn_embed_dim", 3072),
        heads=model.get("encoder_attention_heads", 12),
        conv_pos=model.get("conv_pos", 128),
        conv_pos_groups=model.get("conv_pos_groups", 16),
        layer_norm_first=model.get("layer_norm_first", False) is True,
        modality_fuse=model.get("modality_fuse", "concat"),
        activation=model.get("activation_fn", "gelu"),
        audio_layer_norm=task.get("normalize", False) is True,
        audio_dim=audio_dim,
        video=video,
    )


def _check_front_ends(state: Mapping[str, Tensor], name: str, wanted: tuple[str, ...]) -> None:
    present = [kind for kind, prefix in _FRONT_ENDS.items() if any(n.startswith(prefix) for n in state)]
    for kind in wanted:
        if kind not in present:
            remains = f"; {present[0]} features alone can be computed" if present else ""
            tensors = f"no tensor in it is called {_FRONT_ENDS[kind]}…"
            raise CheckpointError(f"{name} lacks the front end that {kind} input needs ({tensors}){remains}")


def _frontend(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{_FRONT_ENDS['video']}resnet."
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _encoder_tensors(config: EncoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint's tensors under the names of `AVHubertEncoder`; raises KeyError where one is missing."""
    names = {"layer_norm": "fused_norm"}
    if config.audio_dim is not None:
        names[f"{_FRONT_ENDS['audio']}proj"] = "audio_proj"
    if config.video is not None:
        names[f"{_FRONT_ENDS['video']}proj"] = "video_proj"
    if config.modality_fuse == "concat":
        names["post_extract_proj"] = "fused_proj"
    tensors = transformer_tensors(config, state) | _weights_and_biases(state, names)
    if config.video is not None:
        front = convert_frontend(_frontend(state), config.video)
        tensors |= {f"video.{name}": tensor for name, tensor in front.items()}
    if f"encoder.layers.{config.layers}.fc1.weight" in state:
        raise ValueError(f"there are more than the {config.layers} layers that the configuration names")
    return tensors


def transformer_tensors(config: EncoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of them that fairseq's TransformerEncoder has (`encoder.…` in the checkpoint)."""
    names = {"encoder.layer_norm": "final_norm"}
    for index in range(config.layers):
        source, target = f"encoder.layers.{index}", f"layers.{index}"
        names |= {
            f"{source}.self_attn_layer_norm": f"{target}.attention_norm",
            f"{source}.self_attn.out_proj": f"{target}.attention_out",
            f"{source}.final_layer_norm": f"{target}.ffn_norm",
            f"{source}.fc1": f"{target}.ffn_in",
            f"{source}.fc2": f"{target}.ffn_out",
        }
    joint = {
        f"layers.{index}.query_key_value": [
            f"encoder.layers.{index}.self_attn.{which}_proj" for which in "qkv"
        ]
        for index in range(config.layers)
    }
    position = {
        "pos_conv.weight": _positional_weight(state),
        "pos_conv.bias": state["encoder.pos_conv.0.bias"],
    }
    return _weights_and_biases(state, names) | _joined(state, joint) | position


def _decoder_tensors(config: DecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint's tensors under the names of `Decoder`; raises KeyError where one is missing."""
    names = {"decoder.layer_norm": "final_norm"} if config.normalize_before else {}
    joint: dict[str, list[str]] = {}
    for index in range(config.layers):
        source, target = f"decoder.layers.{index}", f"layers.{index}"
        names |= {
            f"{source}.self_attn_layer_norm": f"{target}.past_norm",
            f"{source}.self_attn.out_proj": f"{target}.past_out",
            f"{source}.encoder_attn_layer_norm": f"{target}.memory_norm",
            f"{source}.encoder_attn.q_proj": f"{target}.memory_query",
            f"{source}.encoder_attn.out_proj": f"{target}.memory_out",
            f"{source}.final_layer_norm": f"{target}.ffn_norm",
            f"{source}.fc1": f"{target}.ffn_in",
            f"{source}.fc2": f"{target}.ffn_out",
        }
        joint |= {
            f"{target}.past_query_key_value": [f"{source}.self_attn.{which}_proj" for which in "qkv"],
            f"{target}.memory_key_value": [f"{source}.encoder_attn.{which}_proj" for which in "kv"],
        }
    if f"decoder.layers.{config.layers}.fc1.weight" in state:
        raise ValueError(f"there are more than the {config.layers} decoder layers of its configuration")
    embedding = state["decoder.embed_tokens.weight"]
    learned = state.get("decoder.embed_positions.weight")  # with rows up to PAD that are not used
    table = (
        sinusoidal_positions(config.max_positions, config.width) if learned is None else learned[PAD + 1 :]
    )
    own = {"embedding": embedding, "positions": table, "output": state.get("decoder.embed_out", embedding)}
    return own | _weights_and_biases(state, names) | _joined(state, joint)


def _joined(state: Mapping[str, Tensor], names: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """Linear layers that are computed at once."""
    return {
        f"{new}.{part}": torch.cat([state[f"{old}.{part}"] for old in parts])
        for new, parts in names.items()
        for part in ("weight", "bias")
    }


def _weights_and_biases(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    parts = ("weight", "bias")
    return {f"{new}.{part}": state[f"{old}.{part}"] for old, new in names.items() for part in parts}


def _positional_weight(state: Mapping[str, Tensor]) -> Tensor:
    """The positional convolution's weight g·v/|v|, its norm taken over all but the kernel's dimension
    (`weight_norm(..., dim=2)` in fairseq's make_conv_pos), in double precision, rounded once."""
    gain, direction = state["encoder.pos_conv.0.weight_g"], state["encoder.pos_conv.0.weight_v"]
    norm = direction.double().pow(2).sum((0, 1), keepdim=True).sqrt()
    return (gain.double() * direction.double() / norm).float()
