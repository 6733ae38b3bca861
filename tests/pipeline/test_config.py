"""The loader: layers over one another, bases, overrides, and mistakes that say where they come from."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from syncdiff.pipeline.config import (
    AUTO,
    STRICT,
    ConfigError,
    SettingsLayer,
    build,
    differences,
    flag_layers,
    override_layers,
    parse_settings,
    read_layers,
    to_mapping,
    with_settings,
)


@dataclass(frozen=True, config=STRICT)
class Inner:
    share: Annotated[float, Field(ge=0, lt=1)] = 0.5
    kind: Literal["round", "square"] = "round"

    def __post_init__(self) -> None:
        if self.kind == "square" and self.share == 0:
            raise ValueError("a square needs a share")


@dataclass(frozen=True, config=STRICT)
class Outer:
    count: Annotated[int, Field(ge=1, le=9)] = 3
    rate: float = 1.0
    names: tuple[str, ...] = ("a",)
    pair: tuple[float, float] = (0.0, 1.0)
    size: Annotated[Annotated[int, Field(gt=0)] | None, AUTO] = None
    path: str | None = None
    on: bool = False
    inner: Inner = field(default_factory=Inner)


def outer(**settings: Any) -> Outer:
    return build(Outer, [SettingsLayer("here", settings)])


def test_later_layers_win_section_by_section() -> None:
    layers = [
        SettingsLayer("a", {"count": 1, "inner": {"share": 0.1}}),
        SettingsLayer("b", {"inner": {"kind": "square"}}),
    ]
    assert build(Outer, layers) == Outer(count=1, inner=Inner(0.1, "square"))
    assert build(Outer, []) == Outer()


def test_to_mapping_is_plain_and_reversed_by_build() -> None:
    config = outer(names=["x", "y"], rate=2, size=4, inner={"share": 0})
    mapping = to_mapping(config)
    assert mapping["names"] == ["x", "y"] and next(iter(mapping)) == "count"
    assert isinstance(mapping["rate"], float) and isinstance(config.inner.share, float)
    assert outer(**mapping) == config


def test_auto_and_null() -> None:
    assert outer(size="auto").size is None
    assert outer(size=None, path=None) == Outer()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coutn": 1}, "here: unknown key 'coutn'; did you mean 'count'?"),
        ({"zzz": 1}, "here: unknown key 'zzz'; known are count, rate"),
        ({"inner": {"shape": 1}}, "here: unknown key 'inner.shape'; did you mean 'inner.share'?"),
        ({"count": 10}, "here: count: expected a whole number >= 1 and <= 9, got 10"),
        ({"count": True}, "here: count: expected a whole number >= 1 and <= 9, got True"),
        ({"count": 2.0}, "here: count: expected a whole number >= 1 and <= 9, got 2.0"),
        ({"count": None}, "here: count: expected a whole number >= 1 and <= 9, got None"),
        ({"rate": float("nan")}, "here: rate: expected a number, got nan"),
        ({"rate": float("inf")}, "here: rate: expected a number, got inf"),
        ({"rate": False}, "here: rate: expected a number, got False"),
        ({"names": "ab"}, "here: names: expected a list, got 'ab'"),
        ({"names": [1]}, "here: names.0: expected text, got 1"),
        ({"pair": [1, 2, 3]}, "here: pair: expected a list of 2, got [1, 2, 3]"),
        ({"pair": [1]}, "here: pair.1: expected a number"),
        ({"size": 0}, "here: size: expected a whole number > 0 or auto, got 0"),
        ({"path": 1}, "here: path: expected text or null, got 1"),
        ({"on": "yes"}, "here: on: expected true or false, got 'yes'"),
        ({"inner": 1}, "here: inner: expected keys and values, got 1"),
        (
            {"inner": {"kind": "squaer"}},
            "here: inner.kind: expected round or square, got 'squaer'; did you mean 'square'?",
        ),
        ({"inner": {"kind": "square", "share": 0}}, "here: inner: a square needs a share"),
    ],
)
def test_mistakes_say_where_what_and_what_is_expected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        outer(**settings)
    assert str(error.value).startswith(message)


def test_every_mistake_has_a_line_with_its_own_origin() -> None:
    layers = [
        SettingsLayer("file", {"count": 0, "inner": {"share": 0}}),
        SettingsLayer("flag", {"inner": {"kind": "square"}}),
    ]
    with pytest.raises(ConfigError, match=r"^file: count: [^\n]*\nflag: inner: a square needs a share$"):
        build(Outer, layers)


def test_with_settings_checks_what_it_puts_in() -> None:
    assert with_settings(Outer(size=2), {"count": 5}, "flag") == Outer(count=5, size=2)
    with pytest.raises(ConfigError, match=r"^flag: count: "):
        with_settings(Outer(), {"count": 0}, "flag")


def test_a_file_may_hold_what_differs_from_another(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("inner: {share: 0.25}\ncount: 2\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\ncount: 4\n")
    assert build(Outer, read_layers(tmp_path / "b.yaml")) == Outer(count=4, inner=Inner(0.25))
    (tmp_path / "a.yaml").write_text("count: 0\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: count: "):  # the mistake is the base's
        build(Outer, read_layers(tmp_path / "b.yaml"))


def test_a_base_may_come_with_the_package_and_must_be_there(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: train-tiny.yaml\n")
    assert [Path(layer.where).name for layer in read_layers(file)] == ["train-tiny.yaml", "mine.yaml"]
    file.write_text("base: nowhere.yaml\n")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        read_layers(file)


def test_no_file_is_its_own_base(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match="its own base"):
        read_layers(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "x: not valid YAML"),
        ("- 1", "x: expected keys and values, got list"),
        ("a: 1\nb: 2\na: 3", "'a' is set twice"),
        ("a: {b: 1, b: 1}", "'b' is set twice"),
        ("a: !!python/object/apply:os.system [true]", "x: not valid YAML"),
        ("a: &a [*a]", "x: not valid YAML"),
        ("a: 2020-13-45", "x: not valid YAML"),
        ("? [a]\n: 1", "x: not valid YAML"),
        ("a: " + "[" * 5000, "x: not valid YAML"),
    ],
)
def test_texts_that_are_no_settings(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"^x: ") as error:
        parse_settings(text, "x")
    assert message in str(error.value)


@pytest.mark.parametrize("start", ["[*a,*a]", "{<<: [*a,*a], b: [*a,*a]}"], ids=["lists", "merge keys"])
def test_aliases_of_aliases_are_bounded(start: str) -> None:
    """Forty lines that would be 2^40 values."""
    first = "a0: &a0 {x: 1}\n"
    lines = [f"a{n}: &a{n} {start.replace('*a', f'*a{n - 1}')}" for n in range(1, 41)]
    with pytest.raises(ConfigError, match="too many values"):
        parse_settings(first + "\n".join(lines), "bomb.yaml")


def test_texts_that_are_settings() -> None:
    assert parse_settings("# nothing", "x") == {}
    assert parse_settings("1: {2: three}", "x") == {"1": {"2": "three"}}
    assert parse_settings("a: 1e-4\nb: 1E+2\nc: -2e3\nd: 1e4x\ne: 0x1e4", "x") == {
        "a": 1e-4,
        "b": 100.0,
        "c": -2000.0,
        "d": "1e4x",
        "e": 0x1E4,
    }


def test_settings_of_the_command_line() -> None:
    layers = [*flag_layers({"inner.share": 0.25}), *override_layers(["inner.kind=square", "names=[x, y]"])]
    assert build(Outer, layers) == Outer(names=("x", "y"), inner=Inner(0.25, "square"))
    for wrong, message in (
        ("count", "looks like section.key=value"),
        ("count=[", "'count=\\['|count=\\[: not valid YAML"),
        ("count.more=1", "command line: count: expected a whole number"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(Outer, override_layers([wrong]))


def test_differences_name_the_leaves() -> None:
    before = to_mapping(Outer())
    assert differences(before, before) == []
    assert differences(before, to_mapping(Outer(count=4, size=2, inner=Inner(0.25)))) == [
        "count: 3 -> 4",
        "size: None -> 2",
        "inner.share: 0.5 -> 0.25",
    ]
    assert differences({"a": 1, "n": None}, {"b": {"c": 2}}) == ["a: 1 -> (not set)", "b.c: (not set) -> 2"]
    assert differences({"a": 0}, {"a": {"b": 1}}) == ["a: 0 -> {'b': 1}"]
    assert differences({"a": 0}, {}) == ["a: 0 -> (not set)"]
