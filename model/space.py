"""The space that the diffusion works in: pixels, or the latents of a diffusers autoencoder.

"Picture" is RGB in [-1, 1] at `side` = resolution, or latents [B,C,S,S]. The mask is laid over the pixels
before anything is encoded, so that nothing of the mouth reaches the network by way of the autoencoder's
receptive field.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from syncdiff.model.config import ModelConfig
from syncdiff.model.data import Batch
from syncdiff.model.network import Conditions
from syncdiff.pipeline.config import ConfigError


class Space(nn.Module):
    """Pixels as they are; the base of `LatentSpace`. `clip` says that pictures lie within [-1, 1]."""

    channels = 3
    downsample = 1
    clip = True

    def encode(self, pixels: Tensor) -> Tensor:
        """RGB [B,3,N,N] in [-1, 1] to a picture [B,C,S,S]."""
        return pixels

    def decode(self, picture: Tensor) -> Tensor:
        """A picture to RGB [B,3,N,N] in [-1, 1]."""
        return picture.clamp(-1, 1)

    def mask(self, mask: Tensor) -> Tensor:
        """Mask [B,1,N,N] bool to [B,1,S,S]: set where any of its pixels is."""
        return mask if self.downsample == 1 else F.max_pool2d(mask.float(), self.downsample) > 0


class LatentSpace(Space):
    """Latents of a frozen AutoencoderKL, scaled as its configuration says; the mode, not a draw."""

    clip = False

    def __init__(self, folder: str) -> None:
        super().__init__()
        if not Path(folder).is_dir():
            raise ConfigError(f"model.autoencoder: {folder} is no folder (of a diffusers AutoencoderKL)")
        try:
            self.autoencoder = AutoencoderKL.from_pretrained(
                folder, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"model.autoencoder: {folder}: {error}") from error
        self.autoencoder.eval().requires_grad_(False)
        config = self.autoencoder.config
        self.channels = config.latent_channels
        self.downsample = 2 ** (len(config.block_out_channels) - 1)
        self.scale = config.scaling_factor
        self.shift = config.get("shift_factor") or 0.0

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        latents: Tensor = (self.autoencoder.encode(pixels).latent_dist.mode() - self.shift) * self.scale
        return latents

    @torch.no_grad()
    def decode(self, picture: Tensor) -> Tensor:
        pixels: Tensor = self.autoencoder.decode(picture / self.scale + self.shift).sample.clamp(-1, 1)
        return pixels


def make_space(config: ModelConfig) -> Space:
    """The configured space. Raises ConfigError where the autoencoder cannot be loaded or does not fit."""
    if config.autoencoder is None:
        return Space()
    space = LatentSpace(config.autoencoder)
    step = space.downsample * config.unet.patch * 2 ** (len(config.unet.channels) - 1)
    if config.resolution % step:
        raise ConfigError(
            f"model.resolution: {config.resolution} is not a multiple of {step} in latent space"
        )
    return space


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 [0, 255] to float32 [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_uint8(unit: Tensor) -> Tensor:
    """[-1, 1] to uint8, rounded."""
    return ((unit.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def prepare(batch: Batch, space: Space) -> tuple[Tensor, Tensor, Conditions]:
    """What the network may know of a batch, nothing from inside the mask: (masked input, mask, conditions).

    The masked input [B,C,S,S] is the target with the masked pixels grey; mask [B,1,S,S] bool.
    """
    masked_input = space.encode(to_unit(batch.target).masked_fill(batch.mask, 0.0))
    mask = space.mask(batch.mask)
    conditions = Conditions(
        masked=masked_input.masked_fill(mask, 0.0),
        identity=space.encode(to_unit(batch.identity)),
        pose=space.encode(to_unit(batch.pose)),
        has_pose=batch.has_pose,
        audio=batch.audio,
        has_audio=batch.has_audio,
    )
    return masked_input, mask, conditions


def training_target(batch: Batch, masked_input: Tensor, mask: Tensor, space: Space) -> Tensor:
    """The picture to be learned [B,C,S,S]: the whole target, and outside the mask just the masked input.

    In latent space the two differ: latents beside the mask have seen the mouth. While sampling they are not
    at hand.
    """
    return torch.where(mask, space.encode(to_unit(batch.target)), masked_input)
