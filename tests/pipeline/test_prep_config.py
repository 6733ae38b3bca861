"""Settings: the shipped files load, layers override one another, and every mistake is named."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from pydantic.fields import FieldInfo

from syncdiff.pipeline.config import ConfigError, SettingsLayer, build
from syncdiff.pipeline.datasets.listing import LAYOUTS
from syncdiff.pipeline.prep_config import PrepConfig, load_config


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shipped_configs_load_and_open_with_their_command(layout: str) -> None:
    text = (files("syncdiff.configs") / f"{layout}.yaml").read_text("utf-8")
    head = text[: re.search(r"^[^#]", text, re.M).start()]  # type: ignore[union-attr]
    assert f"#   syncdiff-prep {layout} " in head
    assert re.search(r"Expect.*hour.*\d [GT]B|Expect.*\d [GT]B.*hour", head, re.S)
    config = load_config(layout)
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()
    assert build(PrepConfig, [SettingsLayer("manifest", config.to_dict())]) == config


def test_there_is_a_config_for_each_layout_only() -> None:
    with pytest.raises(ConfigError, match="no configs/lrs4"):
        load_config("lrs4")


def test_file_wins_over_layout_and_flags_over_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("face_size_px: 96\njpeg_quality: 80\ntrack:\n  min_face_px: 50\nclips_per_shard: 7\n")
    config = load_config("lrs2", file, {"jpeg_quality": 85, "track.min_coverage": 0.7})
    assert (config.face_size_px, config.jpeg_quality, config.clips_per_shard) == (96, 85, 7)
    assert (config.track.min_face_px, config.track.min_coverage) == (50.0, 0.7)
    assert config.mask == load_config("lrs2").mask
    assert isinstance(config.track.min_face_px, float)
    assert load_config("lrs2", file, {"clips_per_shard": "auto"}).clips_per_shard is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("face_size: 96", "unknown key 'face_size'; did you mean 'face_size_px'?"),
        ("track:\n  min_face: 9", "unknown key 'track.min_face'; did you mean 'track.min_face_px'?"),
        ("zzz: 1", "unknown key 'zzz'; known are face_size_px"),
        ("1: 2", "unknown key '1'"),
        ("face_size_px: big", "face_size_px: expected a whole number >= 32 and <= 1024, got 'big'"),
        ("face_size_px: 96.5", "face_size_px: expected a whole number >= 32 and <= 1024, got 96.5"),
        ("face_size_px: true", "face_size_px: expected a whole number >= 32 and <= 1024, got True"),
        ("face_size_px: 8", "face_size_px: expected a whole number >= 32 and <= 1024, got 8"),
        ("max_clip_s: .nan", "max_clip_s: expected a number >= 1 and <= 600, got nan"),
        ("max_clip_s: long", "max_clip_s: expected a number >= 1 and <= 600, got 'long'"),
        ("all_faces: 1", "all_faces: expected true or false, got 1"),
        ("clips_per_shard: 0", "clips_per_shard: expected a whole number >= 1 and <= 100000 or auto, got 0"),
        (
            "clips_per_shard: some",
            "clips_per_shard: expected a whole number >= 1 and <= 100000 or auto, got 'some'",
        ),
        ("tracker: dilb", "tracker: expected dlib or face-alignment, got 'dilb'; did you mean 'dlib'?"),
        ("tracker: [dlib]", "tracker: expected dlib or face-alignment"),
        ("features: mel", "features: expected a list, got 'mel'"),
        ("features: [mel, mel]", "features: choose from logfbank, mel, each once"),
        ("features: [whisper]", "features: choose from logfbank, mel, each once"),
        ("mask: lower-half", "mask: expected keys and values, got 'lower-half'"),
        ("mask:\n  kind: upper", "mask.kind: expected lower-half or mouth-box or landmarks, got 'upper'"),
        ("mask:\n  margin: 0.7", "mask.margin: expected a number >= 0 and < 0.5, got 0.7"),
        ("pose:\n  identities: 0", "pose.identities: expected a whole number > 0, got 0"),
        ("track:\n  min_coverage: 2", "track.min_coverage: expected a number >= 0 and <= 1, got 2"),
        ("jpeg_quality: 90\njpeg_quality: 80", "'jpeg_quality' is set twice"),
        ("- a\n- b", "expected keys and values, got list"),
        ("a: [", "not valid YAML"),
        ("a: !!python/object/apply:os.system [true]", "not valid YAML"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config("folder", file)
    assert str(error.value).startswith(f"{file}: ")
    assert message in str(error.value)


def test_mistakes_on_the_command_line_say_so() -> None:
    with pytest.raises(ConfigError, match="command line: unknown key 'face_siz'"):
        load_config("folder", None, {"face_siz": 3})


def test_unreadable_config_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_config("folder", tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"bytes\.yaml"):
        load_config("folder", tmp_path / "bytes.yaml")


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config("grid", tmp_path / "empty.yaml") == load_config("grid")


def test_what_changes_no_result_is_not_compared() -> None:
    assert load_config("lrs2", None, {"gpus_per_worker": 0.5}).to_dict() == load_config("lrs2").to_dict()


def test_every_number_has_bounds() -> None:
    def unbounded(annotation: Any, name: str) -> Iterator[str]:
        field = FieldInfo.from_annotation(annotation)
        kind: Any = field.annotation
        if is_dataclass(kind):
            for key, inner in get_type_hints(kind, include_extras=True).items():
                yield from unbounded(inner, f"{name}.{key}")
        elif get_origin(kind) in (Union, types.UnionType):
            yield from unbounded(get_args(kind)[0], name)
        elif kind in (int, float) and not any(
            hasattr(rule, "ge") or hasattr(rule, "gt") for rule in field.metadata
        ):
            yield name

    assert list(unbounded(PrepConfig, "")) == []
    assert list(unbounded(int | None, "one without")) == ["one without"]


def test_layouts_share_a_base() -> None:
    """What a layout's file does not say is the same for all."""
    shared = load_config("folder")
    for layout in LAYOUTS:
        config = load_config(layout)
        own = {"face_size_px": shared.face_size_px, "mouth_rois": shared.mouth_rois}
        assert replace(config, **own) == shared
