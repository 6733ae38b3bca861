"""The documents are true: generated pages are up to date, what they name exists, and their examples run."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from syncdiff.evaluate.clip_pair import ClipPair, Footage
from syncdiff.pipeline.datasets import listing
from syncdiff.pipeline.faces.track import make_backend, track_faces
from syncdiff.pipeline.features.av_sync import loudness
from syncdiff.pipeline.features.extractor import ExtractorInput

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md")])


def test_the_store_format_is_that_of_the_schema() -> None:
    spec = importlib.util.spec_from_file_location(
        "write_store_format", ROOT / "docs" / "write_store_format.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "store-format.md").read_text(encoding="utf-8")
    assert page == module.store_format(), "run: python docs/write_store_format.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    named = re.findall(r"`((?:pipeline|evaluate|model|configs|tests|docs)/[\w./-]+)`", text)
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_the_folders_of_the_architecture_are_those_of_the_tree() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    found = (p.parent for top in ("pipeline", "evaluate") for p in ROOT.glob(f"{top}/*/__init__.py"))
    packages = [folder.relative_to(ROOT) for folder in found]
    missing = [p.as_posix() for p in packages if f"`{p.as_posix()}/`" not in text]
    assert not missing


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    """What the Python of CONTRIBUTING.md defines."""
    names: dict[str, Any] = {}
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def clip(sample_raw: Path) -> Path:
    return sorted((sample_raw / "mvlrs_v1" / "main" / "astronaut").glob("*.mp4"))[0]


def test_a_layout_of_ones_own(
    examples: dict[str, Any], clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(clip, tmp_path / "ann_1.mp4")
    shutil.copy(clip, tmp_path / "bob_1.mp4")
    monkeypatch.setitem(listing._READERS, "flat", examples["read_flat"])
    monkeypatch.setattr(listing, "LAYOUTS", (*listing.LAYOUTS, "flat"))
    clips = listing.read_layout("flat", tmp_path).clips
    assert [(c.id, c.speaker_id) for c in clips] == [("flat/train/ann_1", "ann"), ("flat/train/bob_1", "bob")]


def test_a_tracker_of_ones_own(examples: dict[str, Any]) -> None:
    frames = np.zeros((30, 120, 160, 3), np.uint8)
    (track,) = track_faces([frames], examples["CentredFace"]()).tracks
    assert track.landmarks_px.shape == (30, 68, 2) and track.detected.all()
    x, y = track.landmarks_px[10].mean(axis=0)
    assert abs(x - 80) < 10 and abs(y - 60) < 15


def test_an_extractor_of_ones_own(examples: dict[str, Any]) -> None:
    sound = (np.random.default_rng(0).normal(size=16_000) * 1000).astype(np.int16)
    (features,) = examples["Loudness"]()([ExtractorInput(sound, 25)])
    np.testing.assert_array_equal(features.values[:, 0], loudness(sound, 25))


def test_a_mask_of_ones_own(examples: dict[str, Any]) -> None:
    landmarks = np.random.default_rng(0).uniform(30, 90, (10, 68, 2)).astype(np.float32)
    mask = examples["ellipse"](landmarks, 128, 0.02)
    assert mask.shape == (128, 128) and mask.dtype == np.bool_
    x, y = np.rint(landmarks[:, 48:68]).astype(int).reshape(-1, 2).T
    assert mask[y, x].all()


def test_a_metric_of_ones_own(examples: dict[str, Any], clip: Path) -> None:
    metric = examples["Brightness"]()
    footage = Footage(clip, make_backend("dlib"))
    pair = ClipPair("clip", footage, footage, footage)
    assert metric.score(metric.measure(pair)) == {"brightness": 0.0}
