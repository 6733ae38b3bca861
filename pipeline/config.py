"""Settings from YAML files and command lines: one loader for preparation, training and evaluation.

What can be set is told by frozen dataclasses (`pipeline/prep_config.py`, `model/config.py`,
`evaluate/protocol.py`), whose fields carry types and bounds that pydantic checks. A misspelt key and a value
that makes no sense are errors, never silently left out.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

T = TypeVar("T")

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""For the dataclasses of settings: no unknown keys, no text or truth value where a number belongs."""

AUTO = BeforeValidator(lambda value: None if value == "auto" else value)
"""For a field that is None where its file says `auto`."""

MAX_VALUES = 10_000  # of a text, with what its aliases stand for

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}  # attributes of the bounds that Field makes


class ConfigError(ValueError):
    """Settings that cannot be used; each line of the message names the file (or flag) and the key."""


@dataclass(frozen=True)
class SettingsLayer:
    """Settings of one origin, such as a file; `where` names it in a ConfigError."""

    where: str
    settings: Mapping[str, Any]


# ---- Reading --------------------------------------------------------------------------------------


def config_folder() -> Path:
    """Where the files lie that come with the package."""
    return Path(str(files("syncdiff.configs")))


def find_config(path: Path) -> Path:
    """The file itself, or the one of this name that comes with the package."""
    packaged = config_folder() / path.name
    return packaged if not path.exists() and packaged.is_file() else path


def read_layers(path: Path, built_on_it: tuple[Path, ...] = ()) -> list[SettingsLayer]:
    """The settings of a file, after those of the file that it names as `base` (beside it, or a packaged one).

    Raises ConfigError for a file that cannot be read or that is, over others, its own base.
    """
    if path in built_on_it:
        raise ConfigError(f"{path}: is its own base")
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        packaged = sorted(p.name for p in config_folder().glob("*.yaml"))
        close = get_close_matches(path.name, packaged, n=1)
        hint = f"did you mean {close[0]}?" if close else f"with the package come {', '.join(packaged)}"
        raise ConfigError(f"{path}: there is no such file; {hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    settings = parse_settings(text, str(path))
    base = settings.pop("base", None)
    layers = [] if base is None else read_layers(find_config(path.parent / str(base)), (*built_on_it, path))
    return [*layers, SettingsLayer(str(path), settings)]


def parse_settings(text: str, where: str) -> dict[str, Any]:
    """Keys and values of a YAML text. Raises ConfigError for anything else, and for a key set twice."""
    settings = _parse_yaml(text, where)
    if settings is not None and not isinstance(settings, dict):
        raise ConfigError(f"{where}: expected keys and values, got {type(settings).__name__}")
    return settings or {}


def flag_layers(flags: Mapping[str, Any]) -> list[SettingsLayer]:
    """One layer for each setting of the command line; keys may be dotted (`track.min_face_px`)."""
    layers = []
    for key, value in flags.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        layers.append(SettingsLayer("command line", value))
    return layers


def override_layers(overrides: Sequence[str]) -> list[SettingsLayer]:
    """Layers of texts `section.key=value`, whose values are YAML. Raises ConfigError for other texts."""
    layers = []
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator:
            raise ConfigError(f"{text!r}: an override looks like section.key=value")
        layers += flag_layers({key.strip(): _parse_yaml(value, text)})
    return layers


def _parse_yaml(text: str, where: str) -> Any:
    """What a YAML text holds, as JSON has it (keys are text). No tag runs code."""
    try:
        return json.loads(json.dumps(yaml.load(text, _Loader), default=str))
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid YAML: {error}") from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that is set twice, where YAML would silently keep the last, and aliases of aliases that
    stand for more than any settings hold: json.dumps and merge keys write them out."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        node: yaml.Node | None = super().compose_node(parent, index)
        if isinstance(node, yaml.CollectionNode) and id(node) not in self._sizes:
            inner = (n for item in node.value for n in (item if isinstance(item, tuple) else (item,)))
            self._sizes[id(node)] = 1 + sum(self._sizes.get(id(n), 1) for n in inner)
            if self._sizes[id(node)] > MAX_VALUES:
                raise yaml.composer.ComposerError(None, None, "too many values", node.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for i, key in enumerate(keys) if key in keys[:i]]
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]!r} is set twice", node.start_mark)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML reads, takes a number without a dot (1e-4) for text; YAML 1.2 does not.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), [*"-+0123456789"]
)


# ---- Checking -------------------------------------------------------------------------------------


def build(cls: type[T], layers: Sequence[SettingsLayer]) -> T:
    """The dataclass with the settings of all layers, of which later ones win, section by section.

    Raises ConfigError with a line for each mistake: where it comes from, the dotted key, what is expected.
    """
    settings: dict[str, Any] = {}
    for layer in layers:
        settings = _merged(settings, layer.settings)
    try:
        # In JSON, unlike in Python, a strict pydantic takes a list for a tuple and an object for a dataclass.
        return TypeAdapter(cls).validate_json(json.dumps(settings))
    except ValidationError as error:
        raise ConfigError("\n".join(_explained(cls, layers, error))) from error


def with_settings(config: T, settings: Mapping[str, Any], where: str) -> T:
    """A dataclass with these settings in place of its own. Raises ConfigError as `build` does."""
    return build(type(config), [SettingsLayer("before", to_mapping(config)), SettingsLayer(where, settings)])


def to_mapping(config: Any) -> dict[str, Any]:
    """The reverse of `build`: plain JSON values, in the order of the fields."""
    mapping: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return mapping


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines `section.key: before -> now` for every value that differs; a key that is absent equals null."""
    lines = []
    for key in dict.fromkeys([*before, *now]):
        old, new = ({} if side.get(key) is None else side[key] for side in (before, now))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {before.get(key, '(not set)')} -> {now.get(key, '(not set)')}")
    return lines


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = _merged(base[key], value) if both else value
    return merged


# ---- Explaining -----------------------------------------------------------------------------------


def _explained(cls: type, layers: Sequence[SettingsLayer], error: ValidationError) -> Iterator[str]:
    """A line for each mistake that pydantic found."""
    for mistake in error.errors(include_url=False):
        path, value = mistake["loc"], mistake["input"]
        name = ".".join(map(str, path))
        where = f"{_origin(layers, path)}: "
        if mistake["type"] == "unexpected_keyword_argument":
            section: Any = _field(cls, path[:-1]).annotation
            keys = [".".join([*map(str, path[:-1]), field.name]) for field in fields(section)]
            hint = _did_you_mean(name, keys) or f"; known are {', '.join(keys)}"
            yield f"{where}unknown key {name!r}{hint}"
        elif mistake["type"] == "value_error":  # from a __post_init__ or a validator of the dataclass
            yield f"{where}{name + ': ' if name else ''}{mistake['ctx']['error']}"
        else:
            field = _field(cls, path)
            hint = _did_you_mean(str(value), [str(choice) for choice in _choices(field)])
            yield f"{where}{name}: expected {_expected(field)}, got {value!r}{hint}"


def _origin(layers: Sequence[SettingsLayer], path: Sequence[int | str]) -> str:
    """The last layer that says something of this key, or of the section of this name."""

    def says(settings: Any) -> bool:
        for key in (step for step in path if isinstance(step, str)):
            if not isinstance(settings, Mapping) or key not in settings:
                return False
            settings = settings[key]
        return True

    return next((layer.where for layer in reversed(layers) if says(layer.settings)), layers[-1].where)


def _field(cls: type, path: Sequence[int | str]) -> FieldInfo:
    """Annotation and bounds of a field, given the keys (and places in lists) that lead to it."""
    field = FieldInfo.from_annotation(cls)
    for step in path:
        if isinstance(step, str):
            inner = get_type_hints(field.annotation, include_extras=True)[step]
        else:
            inner = get_args(field.annotation)[0]
        field = FieldInfo.from_annotation(inner)
    return field


def _choices(field: FieldInfo) -> tuple[Any, ...]:
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def _expected(field: FieldInfo) -> str:
    """What a field takes, in words: `a whole number >= 1 and <= 100 or auto`."""
    kind: Any = field.annotation
    if get_origin(kind) in (Union, types.UnionType):
        value = FieldInfo.from_annotation(get_args(kind)[0])
        return f"{_expected(value)} or {'auto' if AUTO in field.metadata else 'null'}"
    if get_origin(kind) is tuple:
        return "a list" if ... in get_args(kind) else f"a list of {len(get_args(kind))}"
    if is_dataclass(kind):
        return "keys and values"
    bounds = [
        f" {symbol} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, symbol in _BOUNDS.items()
        if hasattr(rule, name)
    ]
    return " or ".join(map(str, _choices(field))) or _WORDS[kind] + " and".join(bounds)


def _did_you_mean(word: str, choices: Sequence[str]) -> str:
    close = get_close_matches(word, choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
