"""The AV-HuBERT encoder in plain PyTorch (Shi et al., "Learning Audio-Visual Speech Representation by Masked
Multimodal Cluster Prediction", ICLR 2022), for checkpoints of the original program.

Clips of different lengths are computed as one sequence of steps, without padding between them: only the
positional convolution and attention know where a clip ends. So a clip's features do not depend on what it is
batched with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncdiff.pipeline.avhubert.resnet import FrontendShape, LipFrontend

Modality: TypeAlias = Literal["audio", "video", "both"]
LayerChoice: TypeAlias = int | Literal["final", "all"]

ACTIVATIONS = ("gelu", "relu")  # of fairseq's; AV-HuBERT's own configurations use gelu
FUSIONS = ("concat", "add")


@dataclass(frozen=True)
class EncoderConfig:
    """Size and kind of an encoder. Base has 12 layers of 768 (FFN 3072, 12 heads), Large 24 of 1024 (4096,
    16).

    `layer_norm_first` is pre-norm; `modality_fuse` is concat (audio first) or add; `audio_layer_norm` says
    that audio input is normalised per step; `video` is None where the video front end is not wanted.
    """

    layers: int
    width: int
    ffn_width: int
    heads: int
    conv_pos: int = 128
    conv_pos_groups: int = 16
    layer_norm_first: bool = False
    modality_fuse: str = "concat"
    activation: str = "gelu"
    audio_layer_norm: bool = True
    audio_dim: int | None = 104
    video: FrontendShape | None = None

    def __post_init__(self) -> None:
        sizes = ("layers", "width", "ffn_width", "heads", "conv_pos", "conv_pos_groups")
        for name in sizes:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a positive whole number, got {value!r}")
        if self.width % self.heads or self.width % self.conv_pos_groups:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads and its groups")
        if self.modality_fuse not in FUSIONS:
            raise ValueError(f"modality_fuse must be one of {', '.join(FUSIONS)}, got {self.modality_fuse!r}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")

    @property
    def fused_width(self) -> int:
        return 2 * self.width if self.modality_fuse == "concat" else self.width


class Packing:
    """How clips of different lengths lie one behind another in [N, ...], and how to lay them out as [B, T,
    ...]."""

    def __init__(self, lengths: list[int], device: torch.device) -> None:
        self.lengths = lengths
        self.longest = max(lengths)
        self.equal = min(lengths) == self.longest
        steps = torch.arange(self.longest, device=device)
        self.valid = steps < torch.tensor(lengths, device=device)[:, None]  # [B,T]

    def pad(self, x: Tensor) -> Tensor:
        """[N, ...] to [B, T, ...], zeros behind each clip."""
        if self.equal:
            return x.view(len(self.lengths), self.longest, *x.shape[1:])
        padded = x.new_zeros(*self.valid.shape, *x.shape[1:])
        padded[self.valid] = x
        return padded

    def unpad(self, x: Tensor) -> Tensor:
        """[B, T, ...] to [N, ...]."""
        return x.reshape(-1, *x.shape[2:]) if self.equal else x[self.valid]


class Linear(nn.Linear):
    """A linear layer with the activation behind it, in the type of its weight."""

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        """Shape: [N, in_features] to [N, out_features]; `activation` is none, gelu or relu."""
        y = F.linear(x.to(self.weight.dtype), self.weight, self.bias)
        if activation == "gelu":
            return F.gelu(y)
        return F.relu(y) if activation == "relu" else y


class PositionalConv(nn.Module):
    """The convolutional position embedding of wav2vec 2.0: a grouped convolution over time, and GELU."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(width, width // groups, kernel))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Shape: [N, width], same result."""
        kernel = self.weight.shape[2]
        padded = packing.pad(x.to(self.weight.dtype)).transpose(1, 2)
        y = F.conv1d(padded, self.weight, self.bias, padding=kernel // 2, groups=self.groups)
        y = y[..., : packing.longest]  # an even kernel gives one step more, which fairseq cuts off
        return packing.unpad(F.gelu(y).transpose(1, 2))


class SpectralPositionalConv(nn.Module):
    """`PositionalConv` for inference on a CPU: by Fourier transforms of overlapping blocks (overlap-save), in
    float32. A twenty-fifth of the arithmetic for a kernel of 128, and five times faster."""

    def __init__(self, conv: PositionalConv) -> None:
        super().__init__()
        _, per_group, kernel = conv.weight.shape
        self.kernel = kernel
        self.block = 2 << (kernel - 1).bit_length()  # of which block - kernel + 1 steps come out
        self.bias = conv.bias
        # a convolution layer correlates, so the spectrum is conjugated; [frequencies*groups, inputs, outputs]
        spectrum = torch.fft.rfft(conv.weight.detach().float(), n=self.block).conj()
        grouped = spectrum.view(conv.groups, per_group, per_group, -1).permute(3, 0, 2, 1)
        self.spectrum: Tensor = grouped.resolve_conj().contiguous().flatten(0, 1)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Shape: [N, width], same result."""
        padded = packing.pad(x.float())
        batch, steps, channels = padded.shape
        step = self.block - self.kernel + 1
        blocks = -(-steps // step)
        before = self.kernel // 2
        after = blocks * step + self.kernel - 1 - before - steps
        windows = F.pad(padded, (0, 0, before, after)).unfold(1, self.block, step).transpose(2, 3)
        spectrum = torch.fft.rfft(windows, dim=2)
        columns = spectrum.reshape(batch * blocks, len(self.spectrum), -1).transpose(0, 1)
        product = torch.bmm(columns, self.spectrum).transpose(0, 1).reshape(batch, blocks, -1, channels)
        y = torch.fft.irfft(product, n=self.block, dim=2)[:, :, :step].reshape(batch, -1, channels)[:, :steps]
        return packing.unpad(F.gelu(y + self.bias))


class Layer(nn.Module):
    """A transformer layer, pre-norm or post-norm. The residual stream stays in float32, products are in the
    type of the weights."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.pre_norm = config.layer_norm_first
        self.activation = config.activation
        self.attention_norm = nn.LayerNorm(config.width)
        self.query_key_value = Linear(config.width, 3 * config.width)
        self.attention_out = Linear(config.width, config.width)
        self.ffn_norm = nn.LayerNorm(config.width)
        self.ffn_in = Linear(config.width, config.ffn_width)
        self.ffn_out = Linear(config.ffn_width, config.width)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Shape: [N, width], same result."""
        if self.pre_norm:
            x = x + self._attend(self.attention_norm(x), packing)
            x = x + self.ffn_out(self.ffn_in(self.ffn_norm(x), self.activation))
        else:
            x = self.attention_norm(x + self._attend(x, packing))
            x = self.ffn_norm(x + self.ffn_out(self.ffn_in(x, self.activation)))
        return x

    def _attend(self, x: Tensor, packing: Packing) -> Tensor:
        joint = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))
        if packing.equal:
            y = _attention(packing.pad(joint)).flatten(0, 1)
        elif x.device.type == "cpu":  # clip by clip: no work on padding, and a call costs little
            y = torch.cat([_attention(clip[None])[0] for clip in joint.split(packing.lengths)])
        else:
            y = self._attend_masked(joint, packing)
        mixed: Tensor = self.attention_out(y.flatten(1))
        return mixed

    def _attend_masked(self, joint: Tensor, packing: Packing) -> Tensor:
        """All clips at once, padded, which is what a GPU is good at."""
        return packing.unpad(_attention(packing.pad(joint), packing.valid[:, None, None]))


def _attention(joint: Tensor, mask: Tensor | None = None) -> Tensor:
    """Query, key and value [B,T,3,heads,D] to [B,T,heads,D]; mask [B,1,1,T], True where a step may be looked
    at."""
    query, key, value = joint.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


class AVHubertEncoder(nn.Module):
    """Audio, mouth video or both to features of 25 steps a second."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.audio_proj = Linear(config.audio_dim, config.width) if config.audio_dim is not None else None
        self.video = LipFrontend(config.video) if config.video is not None else None
        self.video_proj = Linear(self.video.width, config.width) if self.video is not None else None
        self.fused_norm = nn.LayerNorm(config.fused_width)
        concat = config.modality_fuse == "concat"
        self.fused_proj = Linear(config.fused_width, config.width) if concat else None
        self.pos_conv: nn.Module = PositionalConv(config.width, config.conv_pos, config.conv_pos_groups)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width)

    def forward(
        self,
        audio: Tensor | None = None,
        video: Tensor | None = None,
        padding_mask: Tensor | None = None,
        layer: LayerChoice = "final",
    ) -> Tensor:
        """A batch, padded at the tail, as the original takes it.

        Shape: audio [B,T,audio_dim], each step normalised; video [B,1,T,88,88], normalised; padding_mask
        [B,T] bool, True on padding. The result is [B,T,width] (with `layer` "all": [B,T,layers,width]), zero
        on padding. See `encode` for `layer`.
        """
        either = audio if audio is not None else video
        if either is None:
            raise ValueError("neither audio nor video was given")
        batch, steps = len(either), either.shape[1 if audio is not None else 2]
        lengths = [steps] * batch if padding_mask is None else (~padding_mask).sum(1).tolist()
        if padding_mask is not None and not (padding_mask[:, 1:] >= padding_mask[:, :-1]).all():
            raise ValueError("padding must be at the tail")
        sounds = [clip[:n] for clip, n in zip(audio, lengths, strict=True)] if audio is not None else None
        mouths = [clip[0, :n] for clip, n in zip(video, lengths, strict=True)] if video is not None else None
        clips = self.encode(sounds, mouths, layer)
        padded = clips[0].new_zeros(batch, steps, *clips[0].shape[1:])
        for index, clip in enumerate(clips):
            padded[index, : len(clip)] = clip
        return padded

    def encode(
        self, audio: list[Tensor] | None, video: list[Tensor] | None, layer: LayerChoice = "final"
    ) -> list[Tensor]:
        """Features of several clips, each as if it were alone.

        Shape: audio of [T_i,audio_dim], video of [T_i,H,W]; the results are [T_i,width] float32, with `layer`
        "all" [T_i,layers,width]. `layer` counts from 1, as the original's `output_layer`, and like it leaves
        out the last layer norm; "final" is the last layer with that norm (which a post-norm encoder does not
        have). Raises ValueError for a layer that does not exist or lengths that differ.
        """
        self.check_layer(layer)
        x, packing = self._fuse(audio, video)
        return list(self.transform(x, packing, layer).split(packing.lengths))

    def transform(self, x: Tensor, packing: Packing, layer: LayerChoice = "final") -> Tensor:
        """The transformer alone, on fused steps.

        Shape: [N,width]; the result is that, float32, with `layer` "all" [N,layers,width]. See `encode`.
        """
        x = x + self.pos_conv(x, packing)
        if not self.config.layer_norm_first:
            x = self.final_norm(x)
        kept = []
        last = layer if isinstance(layer, int) else len(self.layers)
        for module in self.layers[:last]:
            x = module(x, packing)
            if layer == "all":
                kept.append(x)
        if layer == "all":
            x = torch.stack(kept, 1)
        elif layer == "final" and self.config.layer_norm_first:
            x = self.final_norm(x)
        return x.float()

    def _fuse(self, audio: list[Tensor] | None, video: list[Tensor] | None) -> tuple[Tensor, Packing]:
        """Both modalities as one sequence of steps [N,width]; one that is not given counts as zeros."""
        clips = audio or video
        if not clips:
            raise ValueError("neither audio nor video was given")
        lengths = [len(clip) for clip in clips]
        if audio and video and [len(clip) for clip in video] != lengths:
            raise ValueError("audio and video of a clip must have the same number of steps")
        if min(lengths) == 0:
            raise ValueError("a clip without steps has no features")
        packing = Packing(lengths, clips[0].device)
        zeros = clips[0].new_zeros(sum(lengths), self.config.width)
        sound, mouth = zeros, zeros
        if audio:
            if self.audio_proj is None:
                raise ValueError("this encoder was built without its audio front end")
            sound = self.audio_proj(torch.cat(audio))
        if video:
            if self.video is None or self.video_proj is None:
                raise ValueError("this encoder was built without its video front end")
            mouth = self.video_proj(self.video(video))
        if self.fused_proj is None:
            return self.fused_norm((sound + mouth).float()), packing
        fused = self.fused_norm(torch.cat([sound.float(), mouth.float()], dim=1))
        return self.fused_proj(fused).float(), packing

    def check_layer(self, layer: LayerChoice) -> None:
        """Raise ValueError unless this encoder has the layer."""
        exists = layer in ("final", "all") if isinstance(layer, str) else 1 <= layer <= len(self.layers)
        if not exists:
            raise ValueError(f"layer must be 1 to {len(self.layers)}, final or all, got {layer!r}")


def prepare_for_inference(
    encoder: AVHubertEncoder, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> None:
    """Moves the encoder and sets its number type; for good, and not to be trained after.

    In `dtype` are the products and the video front end. Layer norms and the residual stream stay in float32.
    On a CPU so does the positional convolution, which is replaced by a faster form of itself.
    """
    encoder.to(device)
    for module in encoder.modules():
        if isinstance(module, Linear | LipFrontend):
            module.to(dtype)
    if isinstance(encoder.pos_conv, PositionalConv):
        if torch.device(device).type == "cpu":
            encoder.pos_conv = SpectralPositionalConv(encoder.pos_conv)
        else:
            encoder.pos_conv.to(dtype)
