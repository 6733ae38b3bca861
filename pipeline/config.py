"""Settings of a preparation: a layout's defaults, then the user's YAML file, then flags; all checked."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from syncdiff.pipeline.faces.align import AlignConfig
from syncdiff.pipeline.faces.follow import TrackConfig
from syncdiff.pipeline.faces.mask import MaskConfig
from syncdiff.pipeline.faces.reference_frames import PoseConfig

FEATURES = ("logfbank", "mel")
_NOT_CONTENT = ("gpus_per_worker",)
_Config = TypeVar("_Config")

# Smallest and largest value; the parts check what else they need (MaskConfig, PoseConfig).
RANGES: dict[str, tuple[float, float]] = {
    "face_size_px": (32, 1024),
    "jpeg_quality": (1, 100),
    "max_clip_s": (1, 600),
    "clips_per_shard": (1, 100_000),
    "gpus_per_worker": (0, 1),
    "track.detect_interval": (1, 1000),
    "track.doubt_interval": (1, 1000),
    "track.search_interval": (1, 1000),
    "track.verify_interval": (1, 1000),
    "track.thorough_interval": (1, 1000),
    "track.sure_score": (-5, 5),
    "track.start_score": (-5, 5),
    "track.max_gap": (0, 250),
    "track.max_asymmetry": (0, 10),
    "track.min_face_px": (1, 4000),
    "track.min_track_frames": (1, 100_000),
    "track.min_coverage": (0, 1),
    "track.max_faces": (1, 100),
    "track.smooth_window": (1, 101),
    "align.smooth_frames": (0, 25),
}


class ConfigError(Exception):
    """A setting that cannot be used; the message names the file (or flag) and the key."""


@dataclass(frozen=True)
class PrepConfig:
    """How a data set is prepared.

    face_size_px: side of the face crops. jpeg_quality: of the stored crops. tracker: face tracking backend.
    all_faces: keep every face, not only the speaker's. max_clip_s: a longer track becomes several rows.
    features: computed with the clips, from `logfbank` and `mel`. mouth_rois: store the 96x96 grey mouth
    pictures that AV-HuBERT's visual input is cut from. clips_per_shard: None (`auto` in a file) lets the
    number of clips decide. gpus_per_worker: share of a GPU that a worker of a GPU tracker asks Ray for; it
    changes no result. The rest are the settings of single stages.
    """

    face_size_px: int = 256
    jpeg_quality: int = 92
    tracker: Literal["dlib", "face-alignment"] = "dlib"
    all_faces: bool = False
    max_clip_s: float = 20.0
    features: tuple[str, ...] = FEATURES
    mouth_rois: bool = True
    clips_per_shard: int | None = None
    gpus_per_worker: float = 0.0
    track: TrackConfig = field(default_factory=TrackConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)

    def __post_init__(self) -> None:
        unknown = [name for name in self.features if name not in FEATURES]
        if unknown or len(set(self.features)) != len(self.features):
            raise ValueError(
                f"features: choose from {', '.join(FEATURES)}, each once; got {list(self.features)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Everything that decides what the data set holds, as plain JSON values in a fixed order."""
        return {key: value for key, value in _plain(self).items() if key not in _NOT_CONTENT}


def load_config(
    layout: str, path: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> PrepConfig:
    """Settings for a layout: `configs/<layout>.yaml`, over it the file at `path`, over that the overrides.

    Keys of overrides may be dotted (`track.min_face_px`). Raises ConfigError for an unknown key, a wrong
    type, a value out of range, or a file that cannot be read.
    """
    resource = files("syncdiff.configs") / f"{layout}.yaml"
    if not resource.is_file():
        raise ConfigError(f"there is no configs/{layout}.yaml")
    defaults = parse_settings(resource.read_text("utf-8"), resource.name)
    config = apply_settings(PrepConfig(), defaults, resource.name)
    if path is not None:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: {error}") from error
        config = apply_settings(config, parse_settings(text, str(path)), str(path))
    return apply_settings(config, _nested(overrides or {}), "command line")


def apply_settings(config: _Config, settings: Mapping[str, Any], where: str) -> _Config:
    """A dataclass with these settings in place of its own; `where` names their source in a ConfigError.

    A ValueError of a dataclass that checks itself becomes one, too.
    """
    return _apply(config, settings, where, "")


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line per key whose value differs between two `to_dict()`s: `mask.margin: 0.05 -> 0.1`."""
    lines = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key, "(not set)"), new.get(key, "(not set)")
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += difference(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before} -> {after}")
    return lines


def _apply(config: _Config, settings: Mapping[str, Any], where: str, prefix: str) -> _Config:
    hints = get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if key not in hints:
            raise ConfigError(
                f"{where}: unknown key {name!r}{_did_you_mean(name, [prefix + hint for hint in hints])}"
            )
        own = getattr(config, key)
        if is_dataclass(own):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: {name}: expected keys and values, got {value!r}")
            changes[key] = _apply(own, value, where, f"{name}.")
        else:
            changes[key] = _convert(value, hints[key], name, where)
    try:
        return replace(config, **changes)  # type: ignore[type-var]
    except ValueError as error:
        raise ConfigError(f"{where}: {prefix.rstrip('.') + ': ' if prefix else ''}{error}") from error


def _convert(value: Any, hint: Any, name: str, where: str, other: str = "") -> Any:
    """The value as its field wants it; lists become tuples, whole numbers floats, `auto` None."""
    choices = get_args(hint)
    if get_origin(hint) is Literal:
        if value not in choices:
            said = _did_you_mean(str(value), choices)
            raise ConfigError(f"{where}: {name}: expected {' or '.join(choices)}, got {value!r}{said}")
        return value
    if get_origin(hint) in (Union, types.UnionType):
        return None if value in (None, "auto") else _convert(value, choices[0], name, where, " or auto")
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: {name}: expected a list, got {value!r}")
        return tuple(_convert(one, choices[0], name, where) for one in value)
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        expected = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]
        raise ConfigError(f"{where}: {name}: expected {expected}{other}, got {value!r}")
    low, high = RANGES.get(name, (None, None))
    if low is not None and high is not None and not low <= value <= high:
        raise ConfigError(f"{where}: {name}: {value} is not between {low:g} and {high:g}")
    return hint(value)


def _did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return "auto" if value is None else value


def _nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in dotted.items():
        *parents, last = key.split(".")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return nested


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that is set twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for i, key in enumerate(keys) if key in keys[:i]]
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} is set twice", node.start_mark)
        return super().construct_mapping(node, deep)


def parse_settings(text: str, where: str) -> Mapping[str, Any]:
    """Keys and values of a YAML text. Raises ConfigError for anything else, and for a key set twice."""
    try:
        settings = yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {error}") from error
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{where}: expected keys and values, got {type(settings).__name__}")
    return settings
