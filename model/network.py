"""The denoising network: a diffusers UNet, what it sees as channels, and what it hears through
cross-attention.

                noisy target   masked target   identity frame   [pose frame or its spatial code]
                     └──────────────┴── channels ──┴──────────────────────────┘
                                            │
    sound window ─ tokens ─┐              UNet ── predicted noise or velocity
    [pose vector] ─ token ─┴─ cross-attention ┘

"Picture" below is what the diffusion works on: RGB in [-1, 1] or the latents of an autoencoder, [B,C,S,S].

The pose frame is the frame before the target. Handed over as it is, the network copies its mouth and stops
listening; compressed by a bottleneck, it tells where the head is: head pose comes through, lip shape should
not. The paper says no more than that there is a bottleneck, so kind and width are configuration:

    spatial   a grid of size x size cells with `width` channels each, joined to the picture's channels
    vector    `width` numbers, joined to the sound as one more token of cross-attention
    none      no compression: the frame itself is joined to the picture's channels (ablation)
    off       no pose frame at all (ablation)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from syncdiff.model.config import ModelConfig, PoseFrameConfig, UNetConfig
from syncdiff.pipeline.config import ConfigError


@dataclass(frozen=True)
class Conditions:
    """All that the network sees and hears besides the noisy picture and the time step.

    masked [B,C,S,S]: the target with its mouth region set to zero; identity, pose [B,C,S,S]: other frames of
    the clip, whole; has_pose [B] bool: False where there is no pose frame (its picture is then ignored);
    audio [B,L,D]: the sound around the target; has_audio [B] bool: False replaces the sound by a learned
    silence (guidance).
    """

    masked: Tensor
    identity: Tensor
    pose: Tensor
    has_pose: Tensor
    audio: Tensor
    has_audio: Tensor

    def without_audio(self) -> Conditions:
        """The same without sound, for classifier-free guidance."""
        return replace(self, has_audio=torch.zeros_like(self.has_audio))

    def __add__(self, other: Conditions) -> Conditions:
        """Both batches, one after the other."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Conditions(*(torch.cat(pair) for pair in pairs))


@dataclass(frozen=True)
class AudioStats:
    """Mean and standard deviation [D] of a feature over the training split."""

    mean: Tensor
    std: Tensor


class AudioTokens(nn.Module):
    """Feature steps [B,L,D] to tokens [B,L,W] with learned positions, and a learned stand-in for no sound."""

    mean: Tensor
    std: Tensor

    def __init__(self, stats: AudioStats, steps: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", stats.mean.clone())
        self.register_buffer("std", stats.std.clone())
        self.project = nn.Sequential(
            nn.Linear(len(stats.mean), width), nn.SiLU(), nn.Linear(width, width), nn.LayerNorm(width)
        )
        self.position = nn.Parameter(0.02 * torch.randn(steps, width))
        self.silence = nn.Parameter(0.02 * torch.randn(steps, width))

    def forward(self, audio: Tensor, has_audio: Tensor) -> Tensor:
        tokens = self.project((audio - self.mean) / self.std.clamp(min=1e-5)) + self.position
        return torch.where(has_audio[:, None, None], tokens, self.silence.to(tokens.dtype))


def noisy_code(values: Tensor, noise: float, training: bool) -> Tensor:
    """Values of any shape bounded to [-1, 1], and in training with Gaussian noise of this standard deviation.

    With noise s each number carries at most log2(1 + 1/s^2) / 2 bits (capacity of the Gaussian channel,
    Shannon 1948), whatever the encoder learns.
    """
    code = values.tanh()
    return code + noise * torch.randn_like(code) if training and noise > 0 else code


class PoseEncoder(nn.Module):
    """Picture [B,C,S,S] to a code [B,width,size,size] in [-1, 1]: convolutions of stride 2, then 1 x 1."""

    def __init__(self, config: PoseFrameConfig, in_channels: int, side: int) -> None:
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
        return noisy_code(self.body(picture), self.noise, self.training)


class SpatialBottleneck(nn.Module):
    """[B,C,S,S] to channels [B,width,out_side,out_side]: the grid, enlarged bilinearly."""

    def __init__(self, config: PoseFrameConfig, in_channels: int, side: int, out_side: int) -> None:
        super().__init__()
        self.encode = PoseEncoder(config, in_channels, side)
        self.out_side = out_side

    def forward(self, picture: Tensor) -> Tensor:
        return F.interpolate(self.encode(picture), size=self.out_side, mode="bilinear", align_corners=False)


class VectorBottleneck(nn.Module):
    """[B,C,S,S] to a token [B,1,token_width] that depends on `width` numbers only."""

    def __init__(self, config: PoseFrameConfig, in_channels: int, side: int, token_width: int) -> None:
        super().__init__()
        grid = PoseFrameConfig(width=config.hidden, size=config.size, hidden=config.hidden)
        self.encode = PoseEncoder(grid, in_channels, side)
        self.squeeze = nn.Linear(config.hidden * config.size**2, config.width)
        self.expand = nn.Linear(config.width, token_width)
        self.noise = config.noise

    def forward(self, picture: Tensor) -> Tensor:
        code = noisy_code(self.squeeze(self.encode(picture).flatten(1)), self.noise, self.training)
        token: Tensor = self.expand(code)[:, None]
        return token


class SyncDiffNet(nn.Module):
    """Predict noise or velocity of a noisy picture under `Conditions`; see the module's drawing.

    `channels` and `side` describe the picture, `steps` counts the feature steps of a sound window. `encoder`
    turns what the conditions hold of the sound into features; without one they are features already.
    """

    def __init__(
        self,
        config: ModelConfig,
        channels: int,
        side: int,
        stats: AudioStats,
        steps: int,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        unet, pose = config.unet, config.pose
        self.patch = unet.patch
        self.bottleneck = pose.bottleneck
        inner = side // unet.patch
        pose_channels = 0
        if pose.bottleneck == "spatial":
            self.pose: nn.Module = SpatialBottleneck(pose, channels, side, inner)
            pose_channels = pose.width
        elif pose.bottleneck == "vector":
            self.pose = VectorBottleneck(pose, channels, side, unet.cross_width)
        elif pose.bottleneck == "none":
            self.pose = nn.PixelUnshuffle(unet.patch)
            pose_channels = channels * unet.patch**2
        self.audio = AudioTokens(stats, steps, unet.cross_width)
        folded = channels * unet.patch**2
        self.unet = build_unet(unet, 3 * folded + pose_channels, folded, inner)

    def forward(self, noisy: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        """[B,C,S,S], [B] int64 and the conditions to the prediction [B,C,S,S]."""
        pictures = torch.cat([noisy, conditions.masked, conditions.identity], dim=1)
        inputs = F.pixel_unshuffle(pictures, self.patch)
        sound = conditions.audio if self.encoder is None else self.encoder(conditions.audio)
        tokens = self.audio(sound, conditions.has_audio)
        if self.bottleneck != "off":
            code = self.pose(conditions.pose)
            code = code * conditions.has_pose.view(-1, *[1] * (code.ndim - 1)).to(code.dtype)
            if self.bottleneck == "vector":
                tokens = torch.cat([tokens, code.to(tokens.dtype)], dim=1)
            else:
                inputs = torch.cat([inputs, code.to(inputs.dtype)], dim=1)
        output = self.unet(inputs, timestep, encoder_hidden_states=tokens, return_dict=False)[0]
        return F.pixel_shuffle(output, self.patch)


def build_unet(config: UNetConfig, in_channels: int, out_channels: int, side: int) -> nn.Module:
    """A UNet2DConditionModel with cross-attention where `config.attention` asks for it and in the middle."""
    down = tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.attention)
    up = tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention))
    model: nn.Module = UNet2DConditionModel(
        sample_size=side,
        in_channels=in_channels,
        out_channels=out_channels,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=config.channels,
        layers_per_block=config.layers_per_block,
        cross_attention_dim=config.cross_width,
        attention_head_dim=config.heads,  # so named in diffusers; this UNet takes it as the number of heads
        norm_num_groups=config.norm_groups,
    )
    return model
