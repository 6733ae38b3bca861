"""The bottleneck that the temporal pose frame passes: head pose comes through, lip shape should not.

The pose frame is the frame before the target. Handed over as it is, the network copies its mouth and stops
listening; compressed, it tells where the head is. The paper says no more than that there is a bottleneck, so
kind and width are configuration:

    spatial   a grid of size x size cells with `width` channels each, joined to the picture's channels
    vector    `width` numbers, joined to the sound as one more token of cross-attention
    none      no compression: the frame itself is joined to the picture's channels (ablation)
    off       no pose frame at all (ablation)

With noise of standard deviation s on a code within [-1, 1], each number carries at most log2(1 + 1/s^2) / 2
bits (capacity of the Gaussian channel, Shannon 1948), whatever the encoder learns.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncdiff.model.config import PoseConfig
from syncdiff.pipeline.config import ConfigError


class Encoder(nn.Module):
    """Picture [B,C,S,S] to a code [B,width,size,size] in [-1, 1]: convolutions of stride 2, then 1 x 1."""

    def __init__(self, config: PoseConfig, in_channels: int, side: int) -> None:
        super().__init__()
        halvings = math.log2(side / config.size)
        if not halvings.is_integer() or halvings < 0:
            raise ConfigError(f"pose.size: {side} / {config.size} is not a power of two")
        layers: list[nn.Module] = []
        channels = in_channels
        for _ in range(int(halvings)):
            layers += [nn.Conv2d(channels, config.hidden, 3, stride=2, padding=1)]
            layers += [nn.GroupNorm(1, config.hidden), nn.SiLU()]
            channels = config.hidden
        self.body = nn.Sequential(*layers, nn.Conv2d(channels, config.width, 1))
        self.noise = config.noise

    def forward(self, picture: Tensor) -> Tensor:
        code: Tensor = self.body(picture).tanh()
        if self.training and self.noise > 0:
            code = code + self.noise * torch.randn_like(code)
        return code


class SpatialBottleneck(nn.Module):
    """[B,C,S,S] to channels [B,width,out_side,out_side]: the grid, enlarged bilinearly."""

    def __init__(self, config: PoseConfig, in_channels: int, side: int, out_side: int) -> None:
        super().__init__()
        self.encode = Encoder(config, in_channels, side)
        self.out_side = out_side

    def forward(self, picture: Tensor) -> Tensor:
        return F.interpolate(self.encode(picture), size=self.out_side, mode="bilinear", align_corners=False)


class VectorBottleneck(nn.Module):
    """[B,C,S,S] to a token [B,1,token_width] that depends on `width` numbers only."""

    def __init__(self, config: PoseConfig, in_channels: int, side: int, token_width: int) -> None:
        super().__init__()
        grid = PoseConfig(width=config.hidden, size=config.size, hidden=config.hidden)
        self.encode = Encoder(grid, in_channels, side)
        self.squeeze = nn.Linear(config.hidden * config.size**2, config.width)
        self.expand = nn.Linear(config.width, token_width)
        self.noise = config.noise

    def forward(self, picture: Tensor) -> Tensor:
        code: Tensor = self.squeeze(self.encode(picture).flatten(1)).tanh()
        if self.training and self.noise > 0:
            code = code + self.noise * torch.randn_like(code)
        token: Tensor = self.expand(code)[:, None]
        return token
