"""One YAML file describes a training run: what can be set in it, and within which bounds.

A file may begin with `base: other.yaml` and then holds only what differs. See `pipeline/config.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from pydantic.dataclasses import dataclass

from syncdiff.pipeline.config import STRICT, SettingsLayer, build, override_layers, read_layers

Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


def _odd(value: int) -> int:
    _require(value % 2 == 1, f"{value} is not odd")
    return value


def _word(word: Literal["off", "no"]) -> BeforeValidator:
    """For a choice that YAML 1.1 reads as false where it is written without quotes."""
    return BeforeValidator(lambda value: word if value is False else value)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, config=STRICT)
class UNetConfig:
    """Shape of `diffusers.UNet2DConditionModel`; one entry of channels and attention a resolution level."""

    channels: tuple[int, ...] = (128, 256, 384, 512)
    attention: tuple[bool, ...] = (False, True, True, True)  # cross-attention to the sound at this level
    layers_per_block: PositiveInt = 2
    heads: PositiveInt = 4
    cross_width: PositiveInt = 512  # width of the tokens that cross-attention reads
    norm_groups: PositiveInt = 32
    # fold patch x patch pixels into channels first: the cheap way to shrink the picture
    patch: PositiveInt = 1

    def __post_init__(self) -> None:
        _require(len(self.channels) > 0, "channels: needs at least one level")
        _require(
            len(self.channels) == len(self.attention),
            "channels and attention differ in their number of levels",
        )
        for count in self.channels:
            fits = count > 0 and count % self.norm_groups == 0 and count % self.heads == 0
            _require(fits, f"channels: {count} is no multiple of both norm_groups and heads")


@dataclass(frozen=True, config=STRICT)
class AudioConfig:
    """What the network hears of each frame."""

    features: str = "avhubert"  # an extractor id of the store, or "avhubert": the only one whose id begins so
    window: Annotated[PositiveInt, AfterValidator(_odd)] = 5  # video frames heard, centred on the target; odd
    drop: BelowOne = 0.1  # share of samples trained without sound, for classifier-free guidance
    finetune_layers: NonNegativeInt = 0  # top AV-HuBERT layers to train on waveforms; 0 reads cached features
    checkpoint: str | None = None  # AV-HuBERT checkpoint, for finetune_layers
    context_s: PositiveFloat = 1.0  # sound on either side of the target given to a fine-tuned AV-HuBERT

    def __post_init__(self) -> None:
        _require(
            self.finetune_layers == 0 or self.checkpoint is not None,
            "finetune_layers: needs audio.checkpoint, the AV-HuBERT checkpoint to start from",
        )


@dataclass(frozen=True, config=STRICT)
class PoseFrameConfig:
    """The temporal pose frame and the bottleneck it passes; the paper says nothing of kind and width."""

    # none: the frame as it is; off: no pose frame
    bottleneck: Annotated[Literal["spatial", "vector", "none", "off"], _word("off")] = "spatial"
    width: PositiveInt = 4  # channels that leave a spatial bottleneck; numbers that leave a vector one
    size: PositiveInt = 8  # side of the grid on which the encoder ends
    hidden: PositiveInt = 32  # channels inside the encoder
    # standard deviation added to the code in training, which bounds what it can carry
    noise: NonNegativeFloat = 0.0
    drop: Share = 0.1  # share of samples trained without pose frame, so that a clip's first frame can be made


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    resolution: PositiveInt = 128  # side of the face in pixels
    space: Literal["pixel", "latent"] = "pixel"
    autoencoder: str | None = None  # folder of a diffusers AutoencoderKL, for latent space
    unet: UNetConfig = field(default_factory=UNetConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    pose: PoseFrameConfig = field(default_factory=PoseFrameConfig)

    def __post_init__(self) -> None:
        _require(
            (self.space == "latent") == (self.autoencoder is not None),
            "space latent and autoencoder need one another",
        )
        levels = self.unet.patch * 2 ** (len(self.unet.channels) - 1)
        _require(
            self.resolution % levels == 0,
            f"resolution: {self.resolution} is not a multiple of {levels} (unet.patch and its levels)",
        )


@dataclass(frozen=True, config=STRICT)
class DiffusionConfig:
    timesteps: PositiveInt = 1000
    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    # the last step is pure noise (Lin et al. 2024, arXiv 2305.08891, algorithm 1)
    zero_terminal_snr: bool = False
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    # expected spread of the picture around the prior, for preconditioning as in EDM; null for none
    data_std: PositiveFloat | None = None
    prior: Literal["zero", "identity"] = "zero"  # the picture that the spread is around
    loss_region: Literal["mask", "whole"] = "mask"
    # Whose error counts alike at every noise level: that of the predicted noise (or velocity) or of the
    # picture.
    loss_weight: Literal["prediction", "picture"] = "prediction"
    sampler: Literal["ddim", "dpm++"] = "ddim"
    sampling_steps: PositiveInt = 25
    guidance: NonNegativeFloat = 1.0  # scale of classifier-free guidance on the sound; 1 is none

    def __post_init__(self) -> None:
        _require(
            not (self.zero_terminal_snr and self.prediction == "epsilon"),
            "zero_terminal_snr needs v_prediction (from pure noise, the noise is no news)",
        )
        _require(
            self.sampling_steps <= self.timesteps,
            f"sampling_steps: {self.sampling_steps} is not between 1 and {self.timesteps}",
        )
        _require(self.data_std is None or self.prediction == "v_prediction", "data_std: needs v_prediction")
        _require(self.prior == "zero" or self.data_std is not None, "prior: needs data_std")
        _require(0.0 < self.beta_start <= self.beta_end < 1.0, "needs 0 < beta_start <= beta_end < 1")


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    train_split: str = "train"
    val_split: str | None = "val"  # validated with; null takes the training split
    identity: Literal["random", "ranked"] = "random"  # any other frame (paper), or the store's ranking
    mirror: bool = True  # show half of the samples mirrored
    # vary the light: standard deviation of the logarithm of a sample's RGB gains
    light: NonNegativeFloat = 0.0
    # move all pictures of a sample by at most this share of their side
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    # share of samples whose pose frame the averaged network makes first, as it does while generating, so that
    # training meets the faults of its own frames
    rollout: Share = 0.0
    # sampling steps of such a pose frame; one is enough for v_prediction with zero_terminal_snr
    rollout_steps: PositiveInt = 1
    frames_per_clip: PositiveInt = 8  # samples drawn from a clip each time it is visited
    window: PositiveInt = 4  # row groups open at once per worker, among whose samples the order is shuffled
    workers: NonNegativeInt = 2  # loader processes per rank; 0 loads in the training process


@dataclass(frozen=True, config=STRICT)
class OptimConfig:
    steps: PositiveInt = 300_000
    batch_size: PositiveInt = 32  # samples per rank and forward pass
    accumulate: PositiveInt = 1  # forward passes a step
    lr: PositiveFloat = 1e-4
    warmup_steps: NonNegativeInt = 1000
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    clip_norm: PositiveFloat = 1.0
    ema_decay: BelowOne = 0.9999
    final_decay: Share = 0.0  # share of the steps, at the end, over which the rate falls linearly to zero
    precision: Annotated[Literal["no", "bf16"], _word("no")] = "bf16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False


@dataclass(frozen=True, config=STRICT)
class LogConfig:
    every: PositiveInt = 50  # steps between entries of the log
    checkpoint_every: PositiveInt = 5000
    sample_every: NonNegativeInt = 5000  # steps between validations, each with a sample strip; 0 for none
    keep: PositiveInt = 3  # newest checkpoints kept


@dataclass(frozen=True, config=STRICT)
class TrainConfig:
    """A whole run. `data` and `out` may be left to the command line."""

    data: str | None = None  # prepared data set, as `syncdiff-prep` wrote it
    out: str | None = None  # folder of checkpoints, logs and strips
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    loader: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    log: LogConfig = field(default_factory=LogConfig)


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file and apply `section.key=value` overrides (values in YAML); raise ConfigError."""
    return build(TrainConfig, [*read_layers(path), *override_layers(overrides)])


def from_mapping(mapping: dict[str, Any], where: str = "configuration") -> TrainConfig:
    """Build the configuration from nested dictionaries, as a checkpoint holds them; raise ConfigError."""
    return build(TrainConfig, [SettingsLayer(where, mapping)])
