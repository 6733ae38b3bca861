"""What installed packages bring, with a package made by the test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.faces.track import make_backend
from syncdiff.pipeline.plugins import EXTRACTORS, METRICS, TRACKERS, PluginError, load_plugin, plugin_names
from syncdiff.pipeline.prep_config import load_config

CODE = """
from pathlib import Path
(Path(__file__).parent / "was_imported").touch()

class Centred:
    name = "centred"

class Broken:
    pass
"""
POINTS = f"""
[{TRACKERS}]
centred = our_plugins:Centred
gone = our_plugins:Gone

[{EXTRACTORS}]
loud = our_plugins:Broken
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    info = tmp_path / "our_plugins-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-plugins\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(POINTS)
    (tmp_path / "our_plugins.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "our_plugins", raising=False)
    return tmp_path


def test_names_are_known_without_importing(package: Path) -> None:
    assert plugin_names(TRACKERS) == ["centred", "gone"]
    assert plugin_names(METRICS) == []
    assert load_config("lrs2", overrides={"tracker": "centred"}).tracker == "centred"
    assert not (package / "was_imported").exists()


def test_what_is_asked_for_is_loaded_with_its_origin(package: Path) -> None:
    plugin = load_plugin(EXTRACTORS, "loud")
    assert (plugin.value.__name__, plugin.origin) == ("Broken", "our-plugins 1.5")
    assert make_backend("centred").name == "centred"


def test_what_cannot_be_loaded_is_said(package: Path) -> None:
    with pytest.raises(PluginError, match=r"no installed package brings 'far' .* there are: centred, gone"):
        load_plugin(TRACKERS, "far")
    with pytest.raises(PluginError, match=r"'gone' \(our-plugins 1.5\) cannot be loaded: AttributeError"):
        load_plugin(TRACKERS, "gone")
    with pytest.raises(ConfigError, match="did you mean 'centred'"):
        load_config("lrs2", overrides={"tracker": "centered"})
