"""One YAML file describes a training run; this reads it into frozen dataclasses.

A value that makes no sense and a key that is not known are errors, the latter naming the nearest known key,
so that a misspelt setting can never be silently ignored.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says where and why."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class UNetConfig:
    """Shape of `diffusers.UNet2DConditionModel`; one entry of channels and attention a resolution level."""

    channels: tuple[int, ...] = (128, 256, 384, 512)
    attention: tuple[bool, ...] = (False, True, True, True)  # cross-attention to the sound at this level
    layers_per_block: int = 2
    heads: int = 4
    cross_width: int = 512  # width of the tokens that cross-attention reads
    norm_groups: int = 32
    patch: int = 1  # fold patch x patch pixels into channels first: the cheap way to shrink the picture

    def __post_init__(self) -> None:
        _require(len(self.channels) > 0, "unet.channels: needs at least one level")
        _require(
            len(self.channels) == len(self.attention),
            "unet: channels and attention differ in their number of levels",
        )
        for count in self.channels:
            fits = count % self.norm_groups == 0 and count % self.heads == 0
            _require(fits, f"unet.channels: {count} is no multiple of both norm_groups and heads")
        _require(self.patch >= 1, "unet.patch: must be 1 or more")


@dataclass(frozen=True)
class AudioConfig:
    """What the network hears of each frame."""

    features: str = "avhubert"  # an extractor id of the store, or "avhubert": the only one whose id begins so
    window: int = 5  # video frames heard, centred on the target; odd
    drop: float = 0.1  # share of samples trained without sound, for classifier-free guidance
    finetune_layers: int = 0  # top AV-HuBERT layers to train on waveforms; 0 reads cached features
    checkpoint: str | None = None  # AV-HuBERT checkpoint, for finetune_layers
    context_s: float = 1.0  # sound on either side of the target given to a fine-tuned AV-HuBERT

    def __post_init__(self) -> None:
        _require(self.window >= 1 and self.window % 2 == 1, f"audio.window: {self.window} is not odd")
        _require(0.0 <= self.drop < 1.0, f"audio.drop: {self.drop} is not in [0, 1)")
        _require(self.finetune_layers >= 0, "audio.finetune_layers: must be 0 or more")
        _require(
            self.finetune_layers == 0 or self.checkpoint is not None,
            "audio.finetune_layers: needs audio.checkpoint, the AV-HuBERT checkpoint to start from",
        )


@dataclass(frozen=True)
class PoseConfig:
    """The temporal pose frame and the bottleneck it passes; the paper says nothing of kind and width."""

    # none: the frame as it is; off: no pose frame
    bottleneck: Literal["spatial", "vector", "none", "off"] = "spatial"
    width: int = 4  # channels that leave a spatial bottleneck; numbers that leave a vector one
    size: int = 8  # side of the grid on which the encoder ends
    hidden: int = 32  # channels inside the encoder
    noise: float = 0.0  # standard deviation added to the code in training, which bounds what it can carry
    drop: float = 0.1  # share of samples trained without pose frame, so that a clip's first frame can be made

    def __post_init__(self) -> None:
        _require(self.width >= 1 and self.size >= 1, "pose: width and size must be 1 or more")
        _require(self.noise >= 0.0, f"pose.noise: {self.noise} is negative")
        _require(0.0 <= self.drop <= 1.0, f"pose.drop: {self.drop} is not in [0, 1]")


@dataclass(frozen=True)
class ModelConfig:
    resolution: int = 128  # side of the face in pixels
    space: Literal["pixel", "latent"] = "pixel"
    autoencoder: str | None = None  # folder of a diffusers AutoencoderKL, for latent space
    unet: UNetConfig = field(default_factory=UNetConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)

    def __post_init__(self) -> None:
        _require(
            (self.space == "latent") == (self.autoencoder is not None),
            "model: space latent and autoencoder need one another",
        )
        levels = self.unet.patch * 2 ** (len(self.unet.channels) - 1)
        _require(
            self.resolution > 0 and self.resolution % levels == 0,
            f"model.resolution: {self.resolution} is not a multiple of {levels} (unet.patch and its levels)",
        )


@dataclass(frozen=True)
class DiffusionConfig:
    timesteps: int = 1000
    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    # the last step is pure noise (Lin et al. 2024, arXiv 2305.08891, algorithm 1)
    zero_terminal_snr: bool = False
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    # expected spread of the picture around the prior, for preconditioning as in EDM; null for none
    data_std: float | None = None
    prior: Literal["zero", "identity"] = "zero"  # the picture that the spread is around
    loss_region: Literal["mask", "whole"] = "mask"
    # Whose error counts alike at every noise level: that of the predicted noise (or velocity) or of the
    # picture.
    loss_weight: Literal["prediction", "picture"] = "prediction"
    sampler: Literal["ddim", "dpm++"] = "ddim"
    sampling_steps: int = 25
    guidance: float = 1.0  # scale of classifier-free guidance on the sound; 1 is none

    def __post_init__(self) -> None:
        _require(
            not (self.zero_terminal_snr and self.prediction == "epsilon"),
            "diffusion: zero_terminal_snr needs v_prediction (from pure noise, the noise is no news)",
        )
        _require(
            1 <= self.sampling_steps <= self.timesteps,
            f"diffusion.sampling_steps: {self.sampling_steps} is not between 1 and {self.timesteps}",
        )
        _require(
            self.data_std is None or (self.data_std > 0 and self.prediction == "v_prediction"),
            "diffusion.data_std: must be positive, and needs v_prediction",
        )
        _require(self.prior == "zero" or self.data_std is not None, "diffusion.prior: needs data_std")
        _require(
            0.0 < self.beta_start <= self.beta_end < 1.0, "diffusion: needs 0 < beta_start <= beta_end < 1"
        )
        _require(self.guidance >= 0.0, f"diffusion.guidance: {self.guidance} is negative")


@dataclass(frozen=True)
class DataConfig:
    train_split: str = "train"
    val_split: str | None = "val"  # where the sample strips come from; null takes the training split
    identity: Literal["random", "ranked"] = "random"  # any other frame (paper), or the store's ranking
    mirror: bool = True  # show half of the samples mirrored
    light: float = 0.0  # vary the light: standard deviation of the logarithm of a sample's RGB gains
    shift: float = 0.0  # move all pictures of a sample by at most this share of their side
    frames_per_clip: int = 8  # samples drawn from a clip each time it is visited
    window: int = 4  # row groups open at once per worker, among whose samples the order is shuffled
    workers: int = 2  # loader processes per rank; 0 loads in the training process

    def __post_init__(self) -> None:
        _require(
            self.frames_per_clip >= 1 and self.window >= 1,
            "loader: frames_per_clip and window must be 1 or more",
        )
        _require(self.workers >= 0 and self.light >= 0, "loader: workers and light must be 0 or more")
        _require(0.0 <= self.shift < 0.5, f"loader.shift: {self.shift} is not in [0, 0.5)")


@dataclass(frozen=True)
class OptimConfig:
    steps: int = 300_000
    batch_size: int = 32  # samples per rank and forward pass
    accumulate: int = 1  # forward passes a step
    lr: float = 1e-4
    warmup_steps: int = 1000
    weight_decay: float = 0.0
    betas: tuple[float, ...] = (0.9, 0.999)
    clip_norm: float = 1.0
    ema_decay: float = 0.9999
    final_decay: float = 0.0  # share of the steps, at the end, over which the rate falls linearly to zero
    precision: Literal["no", "bf16"] = "bf16"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        counts = (self.steps, self.batch_size, self.accumulate)
        _require(min(counts) >= 1, "optim: steps, batch_size and accumulate must be 1 or more")
        _require(
            self.lr > 0 and self.warmup_steps >= 0, "optim: lr must be positive and warmup_steps not negative"
        )
        _require(0.0 <= self.ema_decay < 1.0, f"optim.ema_decay: {self.ema_decay} is not in [0, 1)")
        _require(len(self.betas) == 2, "optim.betas: needs two numbers")
        _require(0.0 <= self.final_decay <= 1.0, f"optim.final_decay: {self.final_decay} is not in [0, 1]")


@dataclass(frozen=True)
class LogConfig:
    every: int = 50  # steps between entries of the log
    checkpoint_every: int = 5000
    sample_every: int = 5000  # steps between sample strips; 0 for none
    keep: int = 3  # newest checkpoints kept

    def __post_init__(self) -> None:
        _require(
            min(self.every, self.checkpoint_every, self.keep) >= 1,
            "log: every, checkpoint_every, keep: at least 1",
        )
        _require(self.sample_every >= 0, "log.sample_every: must be 0 or more")


@dataclass(frozen=True)
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


def load_config(path: Path, overrides: typing.Sequence[str] = ()) -> TrainConfig:
    """Read a YAML file and apply `section.key=value` overrides (values in YAML); raise ConfigError.

    A file may begin with `base: other.yaml`, a file beside it, and then holds only what differs.
    """
    mapping = _read(path, ())
    for override in overrides:
        _override(mapping, override)
    return from_mapping(mapping, str(path))


def _read(path: Path, through: tuple[Path, ...]) -> dict[str, Any]:
    if path in through:
        raise ConfigError(f"{path}: is its own base")
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(mapping).__name__}")
    base = mapping.pop("base", None)
    return mapping if base is None else _over(_read(path.parent / str(base), (*through, path)), mapping)


def _over(base: dict[str, Any], mapping: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `mapping`, section by section."""
    merged = dict(base)
    for key, value in mapping.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _over(base[key], value) if both else value
    return merged


def from_mapping(mapping: dict[str, Any], where: str = "configuration") -> TrainConfig:
    """Build the configuration from nested dictionaries, as a YAML file or a checkpoint holds them."""
    try:
        return _build(TrainConfig, mapping, "")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def to_mapping(config: TrainConfig) -> dict[str, Any]:
    """The reverse of `from_mapping`; plain values only, ready for JSON."""
    return dataclasses.asdict(config)


def differences(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines `section.key: a -> b` for every leaf in which two mappings differ."""
    lines: list[str] = []
    for key in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(key), theirs.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{key}.")
        elif _plain(a) != _plain(b):
            lines.append(f"{prefix}{key}: {_plain(a)} -> {_plain(b)}")
    return lines


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _override(mapping: dict[str, Any], override: str) -> None:
    keys, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"{override!r}: an override looks like section.key=value")
    *parents, last = keys.strip().split(".")
    for key in parents:
        child = mapping.setdefault(key, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{override!r}: {key} is a value, not a section")
        mapping = child
    mapping[last] = yaml.safe_load(text)


def _build(cls: type[T], mapping: Any, where: str) -> T:
    """Make the dataclass `cls` of a mapping, section by section."""
    if not isinstance(mapping, dict):
        raise ConfigError(f"{where.rstrip('.')}: expected a section with keys, got {mapping!r}")
    hints = typing.get_type_hints(cls)
    for key in mapping:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            raise ConfigError(f"unknown key {where}{key}" + (f"; did you mean {near[0]}?" if near else ""))
    return cls(**{key: _value(hints[key], value, f"{where}{key}") for key, value in mapping.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    """Check a value against its annotation: sections, choices, tuples, optional values and plain numbers."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, f"{where}.")
    if origin is Literal:
        if value is False:  # YAML 1.1 reads the bare words off and no as false
            value = next((word for word in ("off", "no") if word in arguments), value)
        if value in arguments and type(value) is type(arguments[0]):
            return value
        raise ConfigError(f"{where}: {value!r} is none of {', '.join(map(str, arguments))}")
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _value(arguments[0], value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, got {value!r}")
        return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    return _scalar(hint, value, where)


def _scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 (no dot) as text
        try:
            return float(value)
        except ValueError:
            pass
    if type(value) is not hint:
        raise ConfigError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value
