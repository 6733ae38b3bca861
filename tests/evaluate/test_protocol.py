"""Protocols: the shipped ones load and open with their command; mistakes are named."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

from syncdiff.evaluate.metrics.registry import METRICS
from syncdiff.evaluate.protocol import Protocol, load_protocol, protocol_names
from syncdiff.pipeline.config import ConfigError, SettingsLayer, build


@pytest.mark.parametrize("name", protocol_names())
def test_shipped_protocols_load_and_open_with_their_command(name: str) -> None:
    text = (files("syncdiff.configs") / f"eval-{name}.yaml").read_text("utf-8")
    head = text[: re.search(r"^[^#]", text, re.M).start()]  # type: ignore[union-attr]
    assert re.search(
        rf"^#   syncdiff-eval \S+.*{'' if name == 'reconstruction' else f'--protocol {name}'}", head, re.M
    )
    assert "Expect" in head
    protocol = load_protocol(name)
    assert protocol.name == name and protocol.about
    assert build(Protocol, [SettingsLayer("again", protocol.to_dict())]) == protocol
    assert json.loads(json.dumps(protocol.to_dict())) == protocol.to_dict()


def test_the_three_of_the_field_are_there() -> None:
    assert protocol_names() == ["cross", "reconstruction", "silent", "unsynced"]
    assert load_protocol("unsynced").lines == "pairs"
    assert load_protocol("reconstruction").reference == "ground-truth"


@pytest.mark.parametrize("name", protocol_names())
def test_their_metrics_exist_and_fit(name: str) -> None:
    protocol = load_protocol(name)
    assert set(protocol.metrics) <= set(METRICS)
    assert ("silent_lse" if name == "silent" else "lse") in protocol.metrics


def test_settings_can_be_replaced() -> None:
    assert load_protocol("reconstruction", lse="syncnet-tracks").lse == "syncnet-tracks"
    with pytest.raises(ConfigError, match="wav2lip-lrs or syncnet-tracks"):
        load_protocol("reconstruction", lse="wav2lip")


def test_an_own_file_keeps_its_name_and_never_a_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "reconstruction.yaml"
    path.write_text("metrics: [psnr]\nlse_fps: auto\n")
    protocol = load_protocol(str(path))
    assert (protocol.name, protocol.metrics, protocol.lse_fps) == ("reconstruction.yaml", ("psnr",), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metric: [psnr]", r"mine\.yaml: unknown key 'metric'; did you mean 'metrics'\?"),
        ("fps: 30", "fps: clips are compared at 25 frames a second, got 30"),
        ("reference: none", "reference: expected ground-truth or picture"),
        ("metrics: [psnr, psnr]", "metrics: each once, got psnr, psnr"),
        ("metrics: psnr", "metrics: expected a list"),
        ("lmd_face_px: 0", "lmd_face_px: expected a whole number > 0, got 0"),
        ("fps: 25\nfps: 25", "is set twice"),
        ("- a", "expected keys and values"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_protocol(str(path))


def test_unknown_names_and_files() -> None:
    with pytest.raises(ConfigError, match="there are cross, reconstruction, silent, unsynced"):
        load_protocol("paired")
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_protocol("/nowhere/none.yaml")
