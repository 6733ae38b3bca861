"""AV-HuBERT inside the network, its top layers trained along with it (the paper's best freezes 9 of 12).

Instead of cached features the network then hears AV-HuBERT's own input, computed from the shards'
waveforms, for a second or so on either side of the target, and keeps the features of the steps around the
target.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncdiff.model.config import AudioConfig
from syncdiff.pipeline.avhubert.encoder import AVHubertEncoder, EncoderConfig
from syncdiff.pipeline.avhubert.load import load_encoder
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.records import CheckpointError


class TunedHubert(nn.Module):
    """AV-HuBERT's input around targets [B,L,104], L odd, to features [B,window,D] of the middle steps.

    Steps that are all zero lie beyond the clip and are left out, as AV-HuBERT leaves out padding.
    """

    def __init__(self, config: EncoderConfig, audio: AudioConfig) -> None:
        super().__init__()
        layers = config.layers
        if audio.finetune_layers > layers:
            raise ConfigError(
                f"audio.finetune_layers: {audio.finetune_layers} of an encoder with {layers} layers"
            )
        self.window = audio.window
        self.model = AVHubertEncoder(config).requires_grad_(False)
        for layer in self.model.layers[layers - audio.finetune_layers :]:
            layer.requires_grad_(True)
        self.model.final_norm.requires_grad_(True)

    def forward(self, steps: Tensor) -> Tensor:
        present = (steps != 0).any(dim=2)
        if self.model.config.audio_layer_norm:
            steps = F.layer_norm(steps, steps.shape[-1:])
        features = self.model.encode(
            [sequence[keep] for sequence, keep in zip(steps, present, strict=True)], None
        )
        middle = steps.shape[1] // 2
        wanted = torch.arange(self.window, device=steps.device) + middle - self.window // 2
        before = (~present).int().cumprod(dim=1).sum(dim=1)  # steps missing at the start
        cut = [f[(wanted - b).clamp(0, len(f) - 1)] for f, b in zip(features, before, strict=True)]
        return torch.stack(cut)


def load_hubert(audio: AudioConfig) -> TunedHubert:
    """The encoder to start fine-tuning from. Raises ConfigError where the checkpoint cannot be used."""
    assert audio.checkpoint is not None  # AudioConfig sees to it
    try:
        encoder, _ = load_encoder(Path(audio.checkpoint), "audio")
    except (CheckpointError, OSError) as error:
        raise ConfigError(f"audio.checkpoint: {error}") from error
    tuned = TunedHubert(encoder.config, audio)
    tuned.model.load_state_dict(encoder.state_dict())
    return tuned
