"""The encoder equals the original on every golden array, whatever it is batched with, in all its variants."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from syncdiff.pipeline.avhubert import encoder as encoder_module
from syncdiff.pipeline.avhubert.checkpoint import EncoderWeights, find_encoder, read_checkpoint
from syncdiff.pipeline.avhubert.encoder import (
    AVHubertEncoder,
    EncoderConfig,
    Layer,
    Packing,
    prepare_for_inference,
)
from syncdiff.pipeline.avhubert.inputs import extract, plan_batches, prepare_audio, prepare_video
from syncdiff.pipeline.avhubert.load import build_encoder, encoder_config, load_encoder
from syncdiff.pipeline.avhubert.resnet import FRAMES_PER_CHUNK
from syncdiff.pipeline.avhubert.untrained import make_tiny_checkpoint
from syncdiff.pipeline.records import CheckpointError

CLIPS = ["grid_bbaf2n.mpg", "vox2_00104.mp4", "syncnet_example.avi"]
CHECKPOINTS = [
    "tiny_pretrained_plain_cfg.pt",
    "tiny_pretrained_omegaconf_cfg.pt",
    "tiny_finetuned_seq2seq.pt",
]
TOLERANCE = 2e-5
LAYERS = {"audio_layer_final": "final", "audio_layer_1": 1, "audio_layer_2": 2, "audio_layer_3": 3}


@pytest.fixture(scope="module")
def expected(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "avhubert" / "features.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def deterministic_weights() -> ModuleType:
    path = Path(__file__).parents[2] / "deterministic_weights.py"
    spec = importlib.util.spec_from_file_location("deterministic_weights", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def golden_weights(golden: Path) -> dict[str, EncoderWeights]:
    """The golden checkpoints by file name, each read once: that takes a process of its own."""
    return {name: find_encoder(read_checkpoint(golden / "avhubert" / name)) for name in CHECKPOINTS}


@pytest.fixture(scope="module")
def full_weights(
    golden: Path, golden_weights: dict[str, EncoderWeights], deterministic_weights: ModuleType
) -> EncoderWeights:
    """The golden network with its video front end."""
    shapes = json.loads((golden / "avhubert" / "state_dict_shapes.json").read_text())
    filled = deterministic_weights.fill_state_dict({name: tuple(shape) for name, shape in shapes.items()})
    checkpoint = golden_weights[CHECKPOINTS[0]].checkpoint
    for name, tensor in checkpoint.state.items():
        assert np.array_equal(tensor.numpy(), filled[name])
    return find_encoder(
        dataclasses.replace(checkpoint, state={n: torch.from_numpy(a) for n, a in filled.items()})
    )


def audio_input(expected: dict[str, np.ndarray], clip: str) -> Tensor:
    return F.layer_norm(torch.from_numpy(expected[f"{clip}:logfbank_stacked"]), (104,))


def difference(values: Tensor | np.ndarray, wanted: np.ndarray) -> float:
    assert values.shape == wanted.shape
    return float(np.abs(np.asarray(values) - wanted).max())


# --- the original's figures -----------------------------------------------------------------------


@pytest.mark.parametrize("prepared", [False, True], ids=["plain", "prepared"])
@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("what", list(LAYERS))
def test_audio_layers_equal_the_original(
    golden_weights: dict[str, EncoderWeights],
    expected: dict[str, np.ndarray],
    name: str,
    what: str,
    prepared: bool,
) -> None:
    encoder = build_encoder(golden_weights[name], "audio")
    if prepared:
        prepare_for_inference(encoder)
    for clip in CLIPS:
        with torch.inference_mode():
            values = encoder(audio_input(expected, clip)[None], layer=LAYERS[what])[0]
        assert difference(values, expected[f"{clip}:{what}"]) <= TOLERANCE


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_padded_batch_equals_the_original(
    golden_weights: dict[str, EncoderWeights], expected: dict[str, np.ndarray], name: str
) -> None:
    encoder = build_encoder(golden_weights[name], "audio")
    inputs = [audio_input(expected, clip) for clip in CLIPS]
    batch = nn.utils.rnn.pad_sequence(inputs, batch_first=True, padding_value=7.0)
    mask = torch.stack([torch.arange(batch.shape[1]) >= len(clip) for clip in inputs])
    with torch.inference_mode():
        values = encoder(batch, padding_mask=mask)
    for row, clip, name in zip(values, inputs, CLIPS, strict=True):
        assert difference(row[: len(clip)], expected[f"{name}:audio_final_from_padded_batch"]) <= TOLERANCE
        assert not row[len(clip) :].any()


@pytest.mark.parametrize("prepared", [False, True], ids=["plain", "prepared"])
def test_video_and_both_equal_the_original(
    expected: dict[str, np.ndarray], full_weights: EncoderWeights, prepared: bool
) -> None:
    encoder = build_encoder(full_weights, "both")
    if prepared:
        prepare_for_inference(encoder)
    noise = np.random.default_rng(7).standard_normal((1, 1, 75, 88, 88)).astype(np.float32)
    video, audio = torch.from_numpy(noise), audio_input(expected, CLIPS[0])[None]
    with torch.inference_mode():
        assert difference(encoder(None, video)[0], expected[f"{CLIPS[0]}:video_final"]) <= TOLERANCE
        both = encoder(audio, video)[0]
    assert difference(both, expected[f"{CLIPS[0]}:audiovisual_final"]) <= TOLERANCE


def test_batches_of_prepared_sound_equal_the_original(golden: Path, expected: dict[str, np.ndarray]) -> None:
    """`extract` on the original's own filter banks; that ours equal them is tested in test_filterbanks."""
    encoder, weights = load_encoder(golden / "avhubert" / CHECKPOINTS[0], "audio")
    assert encoder.config.audio_layer_norm
    assert weights.checkpoint.name == CHECKPOINTS[0]
    for clip, values in zip(CLIPS, extract(encoder, [audio_input(expected, c) for c in CLIPS]), strict=True):
        assert difference(values, expected[f"{clip}:audio_layer_final"]) <= TOLERANCE


def test_prepared_sound_is_the_originals_input(golden: Path) -> None:
    with np.load(golden / "astronaut_sound.npz") as arrays:
        pcm16, stacked = arrays["pcm16"], arrays["logfbank_stacked"]
    prepared, padded = prepare_audio(pcm16, len(stacked))
    assert padded == 0
    # each step is divided by its own deviation, so the 1e-4 of the filter banks may grow a little
    assert difference(prepared, F.layer_norm(torch.from_numpy(stacked), (104,)).numpy()) <= 2e-4


# --- other kinds of networks, against the definition ----------------------------------------------


def definition(config: EncoderConfig, state: dict[str, Tensor], audio: Tensor, layer: int | str) -> Tensor:
    """One clip's audio features, written down anew from the published architecture with the original's
    names."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def attention(name: str, x: Tensor) -> Tensor:
        split = [linear(f"{name}.{w}_proj", x).view(len(x), config.heads, -1).transpose(0, 1) for w in "qkv"]
        scores = split[0] @ split[1].transpose(1, 2) / split[0].shape[-1] ** 0.5
        return linear(f"{name}.out_proj", (scores.softmax(-1) @ split[2]).transpose(0, 1).flatten(1))

    def feed_forward(name: str, x: Tensor) -> Tensor:
        activate = {"gelu": F.gelu, "relu": F.relu}[config.activation]
        return linear(f"{name}.fc2", activate(linear(f"{name}.fc1", x)))

    sound = linear("feature_extractor_audio.proj", audio)
    fused = torch.cat([sound, torch.zeros_like(sound)], 1) if config.modality_fuse == "concat" else sound
    x = norm("layer_norm", fused)
    if config.modality_fuse == "concat":
        x = linear("post_extract_proj", x)
    v = state["encoder.pos_conv.0.weight_v"]
    weight = state["encoder.pos_conv.0.weight_g"] * v / v.norm(dim=(0, 1), keepdim=True)
    bias = state["encoder.pos_conv.0.bias"]
    kernel = weight.shape[2]
    conv = F.conv1d(x.T[None], weight, bias, padding=kernel // 2, groups=config.conv_pos_groups)[0].T
    x = x + F.gelu(conv[: len(x)])
    if not config.layer_norm_first:
        x = norm("encoder.layer_norm", x)
    for index in range(config.layers if layer == "final" else int(layer)):
        name = f"encoder.layers.{index}"
        if config.layer_norm_first:
            x = x + attention(f"{name}.self_attn", norm(f"{name}.self_attn_layer_norm", x))
            x = x + feed_forward(name, norm(f"{name}.final_layer_norm", x))
        else:
            x = norm(f"{name}.self_attn_layer_norm", x + attention(f"{name}.self_attn", x))
            x = norm(f"{name}.final_layer_norm", x + feed_forward(name, x))
    return norm("encoder.layer_norm", x) if config.layer_norm_first and layer == "final" else x


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> EncoderWeights:
    path = make_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.safetensors", seed=1)
    weights = find_encoder(read_checkpoint(path))
    generator = torch.Generator().manual_seed(0)
    state = {
        name: t + 0.1 * torch.randn(t.shape, generator=generator)
        if t.ndim == 1 and "running" not in name
        else t
        for name, t in weights.state.items()
    }
    return dataclasses.replace(weights, state=state)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"layer_norm_first": False},
    {"modality_fuse": "add"},
    {"layer_norm_first": False, "modality_fuse": "add", "activation_fn": "relu"},
    {"encoder_attention_heads": 8},
    {"encoder_layers": 1},
    {"conv_pos": 1},
    {"conv_pos": 5},  # odd: nothing is cut off
]


def variant(tiny: EncoderWeights, options: dict[str, Any]) -> EncoderWeights:
    state = dict(tiny.state)
    if options.get("modality_fuse") == "add":
        state |= {f"layer_norm.{part}": state[f"layer_norm.{part}"][:64] for part in ("weight", "bias")}
        del state["post_extract_proj.weight"], state["post_extract_proj.bias"]
    kernel = options.get("conv_pos", 128)
    for part in ("weight_g", "weight_v"):
        state[f"encoder.pos_conv.0.{part}"] = state[f"encoder.pos_conv.0.{part}"][..., :kernel]
    layers = options.get("encoder_layers", 3)
    state = {
        n: t for n, t in state.items() if not n.startswith("encoder.layers.") or int(n.split(".")[2]) < layers
    }
    return dataclasses.replace(tiny, state=state, model=tiny.model | options)


@pytest.mark.parametrize("prepared", [False, True], ids=["plain", "prepared"])
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_variant_equals_the_definition(
    tiny: EncoderWeights, options: dict[str, Any], prepared: bool
) -> None:
    weights = variant(tiny, options)
    encoder = build_encoder(weights, "audio")
    if prepared:
        prepare_for_inference(encoder)
    generator = torch.Generator().manual_seed(2)
    clips = [torch.randn(n, 104, generator=generator) for n in (1, 2, 75, 33, 130, 300)]
    for layer in ("final", 1, encoder.config.layers):
        with torch.inference_mode():
            together = encoder.encode(clips, None, layer)
        for clip, values in zip(clips, together, strict=True):
            wanted = definition(encoder.config, weights.state, clip, layer)
            assert difference(values, wanted.numpy()) <= TOLERANCE


def test_the_front_end_equals_a_convolution_in_three_dimensions(tiny: EncoderWeights) -> None:
    """Against Conv3d, batch norms and pooling of PyTorch, for a clip longer than a chunk."""
    state = {
        n.removeprefix("feature_extractor_video.resnet."): t
        for n, t in tiny.state.items()
        if n.startswith("feature_extractor_video.resnet.")
    }
    generator = torch.Generator().manual_seed(3)
    for name in [n for n in state if n.endswith(("running_mean", "running_var"))]:
        state[name] = torch.rand(state[name].shape, generator=generator) + 0.5
    prefixed = {f"feature_extractor_video.resnet.{n}": t for n, t in state.items()}
    encoder = build_encoder(dataclasses.replace(tiny, state=tiny.state | prefixed), "video")

    def norm(name: str, x: Tensor) -> Tensor:
        parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *parts)

    clip = torch.randn(FRAMES_PER_CHUNK + 7, 88, 88, generator=generator)
    x = F.conv3d(clip[None, None], state["frontend3D.0.weight"], stride=(1, 2, 2), padding=(2, 3, 3))
    x = F.prelu(norm("frontend3D.1", x), state["frontend3D.2.weight"])
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))[0].transpose(0, 1)
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"trunk.layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = norm(f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1))
            y = F.prelu(y, state[f"{name}.relu1.weight"])
            y = norm(f"{name}.bn2", F.conv2d(y, state[f"{name}.conv2.weight"], padding=1))
            if stride == 2:
                x = norm(f"{name}.downsample.1", F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=2))
            x = F.prelu(y + x, state[f"{name}.relu2.weight"])
    assert encoder.video is not None
    with torch.inference_mode():
        values = encoder.video([clip, clip[:9]])
    assert difference(values[: len(clip)], x.mean((2, 3)).numpy()) <= TOLERANCE
    assert difference(values[len(clip) : len(clip) + 5], values[:5].numpy()) <= TOLERANCE


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 9))
def test_what_a_clip_is_batched_with_does_not_change_it(
    tiny: EncoderWeights, lengths: list[int], seed: int
) -> None:
    encoder = build_encoder(tiny, "both")
    generator = torch.Generator().manual_seed(seed)
    audio = [torch.randn(n, 104, generator=generator) for n in lengths]
    video = [torch.randn(n, 88, 88, generator=generator) for n in lengths]
    with torch.inference_mode():
        together = encoder.encode(audio, video)
        for sound, mouth, values in zip(audio, video, together, strict=True):
            assert difference(values, encoder.encode([sound], [mouth])[0].numpy()) <= TOLERANCE


def test_masked_attention_equals_clip_by_clip(tiny: EncoderWeights) -> None:
    """The way of GPUs (padded, masked) against the way of CPUs."""
    layer = build_encoder(tiny, "audio").layers[0]
    assert isinstance(layer, Layer)
    packing = Packing([3, 9, 5], torch.device("cpu"))
    x = torch.randn(17, 64)
    with torch.inference_mode():
        expected = layer._attend(x, packing)
        joint = layer.query_key_value(x).unflatten(-1, (3, 4, -1))
        masked = layer._attend_masked(joint, packing)
    assert difference(layer.attention_out(masked.flatten(1)), expected.numpy()) <= TOLERANCE


# --- layers, types, training ----------------------------------------------------------------------


def test_all_layers_are_those_asked_for_one_by_one(tiny: EncoderWeights) -> None:
    encoder = build_encoder(tiny, "audio")
    clip = np.random.default_rng(0).standard_normal((20, 104)).astype(np.float32)
    joint = extract(encoder, [clip], layer="all")[0]
    assert joint.shape == (20, 3 * 64)
    for index in (1, 2, 3):
        assert np.array_equal(
            joint[:, 64 * (index - 1) : 64 * index], extract(encoder, [clip], layer=index)[0]
        )
    final = extract(encoder, [clip])[0]
    norm = F.layer_norm(torch.from_numpy(joint[:, 128:]), (64,), *encoder.final_norm.parameters())
    assert difference(norm, final) <= TOLERANCE


@pytest.mark.parametrize("layer", [0, 4, -1, "last"])
def test_layers_that_do_not_exist_are_refused(tiny: EncoderWeights, layer: Any) -> None:
    encoder = build_encoder(tiny, "audio")
    with pytest.raises(ValueError, match="layer must be 1 to 3, final or all"):
        encoder.encode([torch.zeros(2, 104)], None, layer)


@pytest.mark.parametrize("modality", ["audio", "both"])
def test_bfloat16_stays_near_float32(tiny: EncoderWeights, modality: Any) -> None:
    clip = torch.randn(50, 104, generator=torch.Generator().manual_seed(0))
    mouth = (
        [torch.randn(50, 88, 88, generator=torch.Generator().manual_seed(1))] if modality == "both" else None
    )
    exact = build_encoder(tiny, modality)
    rough = copy.deepcopy(exact)
    prepare_for_inference(rough, torch.bfloat16)
    with torch.inference_mode():
        wanted, got = exact.encode([clip], mouth)[0], rough.encode([clip], mouth)[0]
    assert got.dtype == torch.float32
    assert 0 < (got - wanted).norm() / wanted.norm() < 0.03


def test_bfloat16_works_without_avx512(tmp_path: Path) -> None:
    """In a process of its own: PyTorch and oneDNN choose their instructions when they are first used."""
    checkpoint = make_tiny_checkpoint(tmp_path / "tiny.safetensors")
    program = (
        "import numpy as np; from syncdiff.pipeline.avhubert.extractor import load_avhubert;"
        "from syncdiff.pipeline.features.extractor import ExtractorInput;"
        f"features = load_avhubert({str(checkpoint)!r}, 'both', compute_dtype='bfloat16');"
        "clip = ExtractorInput(np.zeros(6400, np.int16), 10, np.zeros((10, 96, 96), np.uint8));"
        "assert np.isfinite(features([clip])[0].values).all()"
    )
    without = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | without, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_production_code_calls_no_private_operators() -> None:
    """They differ between versions of PyTorch and between processors."""
    package = Path(encoder_module.__file__).parents[1]
    calls = [path for path in package.rglob("*.py") if re.search(r"torch\.(ops\b|_C\b)", path.read_text())]
    assert calls == []


def test_the_encoder_can_be_trained(tiny: EncoderWeights) -> None:
    """Fine-tuning the last layers, as SyncDiff does: gradients reach them and, through them, the input."""
    encoder = build_encoder(tiny, "audio").train()
    encoder.layers[2].requires_grad_(True)
    audio = torch.randn(2, 9, 104, requires_grad=True)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[1, 6:] = True
    encoder(audio, padding_mask=mask).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.layers[2].parameters())
    assert audio.grad is not None and audio.grad[0].any() and not audio.grad[1, 6:].any()


def test_wrong_input_is_refused(tiny: EncoderWeights) -> None:
    encoder = build_encoder(tiny, "audio")
    clip = torch.zeros(4, 104)
    with pytest.raises(ValueError, match="neither audio nor video"):
        encoder()
    with pytest.raises(ValueError, match="neither audio nor video"):
        encoder.encode([], [])
    with pytest.raises(ValueError, match="neither audio nor video"):
        extract(encoder)
    with pytest.raises(ValueError, match="without steps"):
        encoder.encode([clip[:0]], None)
    with pytest.raises(ValueError, match="without its video front end"):
        encoder.encode(None, [torch.zeros(4, 88, 88)])
    with pytest.raises(ValueError, match="without its audio front end"):
        build_encoder(tiny, "video").encode([clip], None)
    with pytest.raises(ValueError, match="same number of steps"):
        build_encoder(tiny, "both").encode([clip], [torch.zeros(5, 88, 88)])
    mask = torch.tensor([[True, False, False, False]])
    with pytest.raises(ValueError, match="at the tail"):
        encoder(clip[None], padding_mask=mask)


# --- checkpoints that do not fit ------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["video", "both"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_golden_checkpoints_lack_the_video_front_end(
    golden_weights: dict[str, EncoderWeights], name: str, modality: Any
) -> None:
    with pytest.raises(
        CheckpointError, match=f"{name} lacks the front end that video input needs.*audio features"
    ):
        build_encoder(golden_weights[name], modality)


def test_missing_and_misshapen_tensors_are_named(tiny: EncoderWeights) -> None:
    def without(name: str) -> EncoderWeights:
        return dataclasses.replace(tiny, state={n: t for n, t in tiny.state.items() if n != name})

    for name in ("encoder.layers.1.fc2.bias", "layer_norm.weight", "encoder.pos_conv.0.weight_g"):
        with pytest.raises(CheckpointError, match=f"lacks the tensor {name}"):
            build_encoder(without(name), "audio")
    name = "feature_extractor_video.resnet.trunk.layer2.0.bn1.running_var"
    with pytest.raises(CheckpointError, match=r"lacks the tensor trunk\.layer2\.0\.bn1\.running_var"):
        build_encoder(without(name), "video")
    build_encoder(without(name), "audio")
    wrong = dataclasses.replace(tiny, model=tiny.model | {"encoder_embed_dim": 128})
    with pytest.raises(CheckpointError, match=r"has size \[64.*configuration says \[128"):
        build_encoder(wrong, "audio")
    fewer = dataclasses.replace(tiny, model=tiny.model | {"encoder_layers": 2})
    with pytest.raises(CheckpointError, match="more than the 2 layers"):
        build_encoder(fewer, "audio")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sub_encoder_layers": 2}, "sub_encoder_layers = 2 is not supported"),
        ({"pos_conv_depth": 5}, "pos_conv_depth = 5 is not supported"),
        ({"layer_type": "conformer"}, "layer_type = conformer is not supported"),
        ({"modality_fuse": "attention"}, "modality_fuse must be"),
        ({"activation_fn": "swish"}, "activation must be"),
        ({"encoder_layers": "${model.x}"}, "layers must be a positive whole number"),
        ({"encoder_layers": 0}, "layers must be a positive whole number"),
        ({"encoder_attention_heads": 7}, "does not divide"),
    ],
)
def test_configurations_of_other_networks_are_refused(
    tiny: EncoderWeights, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message.replace("$", r"\$")):
        build_encoder(dataclasses.replace(tiny, model=tiny.model | options), "audio")


def test_what_a_configuration_leaves_out_is_the_original_default(tiny: EncoderWeights) -> None:
    """AVHubertConfig's own defaults are Base; a configuration that says nothing else still names the
    network."""
    config = encoder_config(dataclasses.replace(tiny, model={"_name": "av_hubert"}, task={}), ("audio",))
    wanted = EncoderConfig(12, 768, 3072, 12, audio_layer_norm=False, layer_norm_first=False, audio_dim=104)
    assert config == wanted


# --- input and batches ----------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "padded"), [(25, 0), (20, -5), (31, 6)])
def test_audio_is_made_as_long_as_the_video(frames: int, padded: int) -> None:
    pcm = np.random.default_rng(0).integers(-3000, 3000, 16_000, dtype=np.int16)
    steps, count = prepare_audio(pcm, frames)
    assert steps.shape == (frames, 104)
    assert steps.dtype == np.float32
    assert count == padded
    whole, _ = prepare_audio(pcm, 25)
    assert np.array_equal(steps[:20], whole[:20])
    assert not steps[25:].any()
    spoken = steps[: min(frames, 25)].astype(np.float64)
    assert np.allclose(spoken.mean(1), 0, atol=1e-6)
    assert np.allclose(spoken.std(1), 1, atol=1e-3)
    raw, _ = prepare_audio(pcm, frames, layer_norm=False)
    assert np.allclose(F.layer_norm(torch.from_numpy(raw), (104,)).numpy(), steps, atol=1e-5)


def test_video_is_cropped_and_normalised() -> None:
    rois = np.random.default_rng(0).integers(0, 256, (3, 96, 96), dtype=np.uint8)
    values = prepare_video(rois)
    assert values.shape == (1, 3, 88, 88)
    assert values.dtype == np.float32
    assert np.allclose(values[0], (rois[:, 4:92, 4:92] / 255 - 0.421) / 0.165, atol=1e-6)
    with pytest.raises(ValueError, match="mouth_rois"):
        prepare_video(rois[:, :88, :88])


@given(st.lists(st.integers(1, 500), max_size=40), st.integers(1, 1000))
def test_batches_hold_every_clip_once_and_keep_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or sum(lengths[i] for i in batch) <= budget for batch in batches)
    in_order = [lengths[i] for batch in batches for i in batch]
    assert in_order == sorted(lengths)


@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_features_come_back_in_order_whatever_the_batches(tiny: EncoderWeights, budget: int) -> None:
    encoder = build_encoder(tiny, "both")
    rng = np.random.default_rng(1)
    lengths = [30, 5, 17, 30, 1]
    audio = [rng.standard_normal((n, 104)).astype(np.float32) for n in lengths]
    video = [rng.standard_normal((1, n, 88, 88)).astype(np.float32) for n in lengths]
    for sound, mouth, values in zip(
        audio, video, extract(encoder, audio, video, max_steps=budget), strict=True
    ):
        assert difference(values, extract(encoder, [sound], [mouth])[0]) <= TOLERANCE


# --- the tiny checkpoint --------------------------------------------------------------------------


def test_the_tiny_checkpoint_is_small_reproducible_and_marked(tmp_path: Path) -> None:
    first = make_tiny_checkpoint(tmp_path / "a.safetensors", seed=3)
    assert first.stat().st_size < 1_000_000
    second = make_tiny_checkpoint(tmp_path / "b.safetensors", seed=3)
    other = make_tiny_checkpoint(tmp_path / "c.safetensors", seed=4)
    a, b, c = (read_checkpoint(path) for path in (first, second, other))
    assert a.untrained
    assert a.sha256 == b.sha256 != c.sha256
    features = []
    for path in (first, other):
        encoder, _ = load_encoder(path, "both")
        audio = np.random.default_rng(0).standard_normal((6, 104)).astype(np.float32)
        video = np.random.default_rng(0).standard_normal((1, 6, 88, 88)).astype(np.float32)
        features += [
            extract(encoder, [audio]),
            extract(encoder, None, [video]),
            extract(encoder, [audio], [video]),
        ]
    for values in features:
        assert values[0].shape == (6, 64)
        assert np.isfinite(values[0]).all() and values[0].std() > 0.1
    assert len({values[0].tobytes() for values in features}) == 6


def test_every_size_is_built_from_its_configuration() -> None:
    """Large, as its published configuration gives it; on no device, so without its 1.2 GB."""
    config = EncoderConfig(24, 1024, 4096, 16, layer_norm_first=True)
    with torch.device("meta"):
        encoder = AVHubertEncoder(config)
    assert sum(p.numel() for p in encoder.parameters()) > 300e6
