"""AV-HuBERT's video front end: a 3-D convolution over five frames, then ResNet-18 on every frame (Shi et al.
2022).

The 3-D convolution has one input channel and a stride of one in time, so it is exactly a 2-D convolution of
windows of five frames; batch norms are folded into the convolutions before them. So every frame is computed
alone, in chunks of any size, and frames that only pad a batch are never computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW = 5  # frames that the first convolution sees
FRAMES_PER_CHUNK = 64  # bounds memory: 64 frames of 88x88 take about 60 MB in the first block
_BATCH_NORM_EPS = 1e-5  # torch.nn.BatchNorm2d's default, which the original keeps
_STAGE_STRIDES = (1, 2, 2, 2)


@dataclass(frozen=True)
class FrontendShape:
    """Channels of the first convolution, channels and blocks of each stage, and the kind of rectifier."""

    stem: int
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    prelu: bool


class Rectifier(nn.Module):
    """PReLU with a slope per channel, or ReLU where `prelu` is False."""

    def __init__(self, channels: int, prelu: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.25)) if prelu else None

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) if self.weight is None else F.prelu(x, self.weight)


class Block(nn.Module):
    """ResNet's basic block, its batch norms folded away."""

    def __init__(self, inputs: int, outputs: int, stride: int, prelu: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.relu1 = Rectifier(outputs, prelu)
        self.relu2 = Rectifier(outputs, prelu)
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.shortcut is None else self.shortcut(x)
        y: Tensor = self.relu2(self.conv2(self.relu1(self.conv1(x))) + kept)
        return y


class LipFrontend(nn.Module):
    """Mouth frames to one vector a frame."""

    def __init__(self, shape: FrontendShape) -> None:
        super().__init__()
        self.stem = nn.Conv2d(WINDOW, shape.stem, 7, stride=2, padding=3)
        self.stem_relu = Rectifier(shape.stem, shape.prelu)
        blocks: list[nn.Module] = []
        inputs = shape.stem
        for outputs, count, stride in zip(shape.channels, shape.blocks, _STAGE_STRIDES, strict=True):
            for index in range(count):
                blocks.append(Block(inputs, outputs, stride if index == 0 else 1, shape.prelu))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.width = inputs

    def forward(self, clips: list[Tensor]) -> Tensor:
        """Frames of several clips, one behind another.

        Shape: clips of [T_i,H,W], normalised; result [sum T_i, width].
        """
        parts = [_windows(clip).chunk(math.ceil(len(clip) / FRAMES_PER_CHUNK)) for clip in clips]
        return torch.cat([self._frames(chunk) for chunks in parts for chunk in chunks])

    def _frames(self, windows: Tensor) -> Tensor:
        x = windows.to(self.stem.weight.dtype).contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(self.stem_relu(self.stem(x)), 3, stride=2, padding=1)
        y: Tensor = self.blocks(x)
        return y.mean(dim=(2, 3))


def _windows(clip: Tensor) -> Tensor:
    """[T,H,W] to [T,5,H,W] without a copy of the frames: each with two before and two after, zeros at the
    ends."""
    half = WINDOW // 2
    padded = F.pad(clip, (0, 0, 0, 0, half, half))
    return padded.unfold(0, WINDOW, 1).movedim(-1, 1)


def frontend_shape(state: Mapping[str, Tensor]) -> FrontendShape:
    """The shape of the front end whose tensors `state` holds under the original's names (`frontend3D`,
    `trunk`).

    Raises KeyError where a tensor is missing.
    """
    stages = range(1, len(_STAGE_STRIDES) + 1)
    channels = tuple(len(state[f"trunk.layer{stage}.0.conv1.weight"]) for stage in stages)
    blocks = tuple(
        next(n for n in range(1, 100) if f"trunk.layer{stage}.{n}.conv1.weight" not in state)
        for stage in stages
    )
    return FrontendShape(len(state["frontend3D.0.weight"]), channels, blocks, "frontend3D.2.weight" in state)


def convert_frontend(state: Mapping[str, Tensor], shape: FrontendShape) -> dict[str, Tensor]:
    """The original's tensors under the names and in the form of `LipFrontend`; raises KeyError where one is
    missing."""
    stem, bias = _fold(state["frontend3D.0.weight"], state, "frontend3D.1")
    converted = {"stem.weight": stem.squeeze(1), "stem.bias": bias}
    if shape.prelu:
        converted["stem_relu.weight"] = state["frontend3D.2.weight"]
    sources = [f"trunk.layer{stage}.{n}" for stage, count in enumerate(shape.blocks, 1) for n in range(count)]
    for index, source in enumerate(sources):
        parts = {"conv1": ("conv1", "bn1"), "conv2": ("conv2", "bn2")}
        if f"{source}.downsample.0.weight" in state:
            parts["shortcut"] = ("downsample.0", "downsample.1")
        for target, (conv, norm) in parts.items():
            weight, bias = _fold(state[f"{source}.{conv}.weight"], state, f"{source}.{norm}")
            converted |= {f"blocks.{index}.{target}.weight": weight, f"blocks.{index}.{target}.bias": bias}
        if shape.prelu:
            for relu in ("relu1", "relu2"):
                converted[f"blocks.{index}.{relu}.weight"] = state[f"{source}.{relu}.weight"]
    return converted


def _fold(weight: Tensor, state: Mapping[str, Tensor], norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the batch norm behind it (in double precision, rounded once)."""
    gamma, beta, mean, variance = (
        state[f"{norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gamma / (variance + _BATCH_NORM_EPS).sqrt()
    folded = weight.double() * factor.view(-1, *[1] * (weight.ndim - 1))
    return folded.float(), (beta - mean * factor).float()
