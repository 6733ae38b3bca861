"""A few rows of the sample with features of an untrained AV-HuBERT."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from syncdiff.pipeline.avhubert.extractor import load_avhubert
from syncdiff.pipeline.avhubert.untrained import make_tiny_checkpoint
from syncdiff.pipeline.features.add_to_store import extract_shard, unfinished_shards
from syncdiff.pipeline.store.manifest import write_manifest
from syncdiff.pipeline.store.paths import StorePaths
from syncdiff.pipeline.store.read import Dataset, open_dataset

FEATURES = "avhubert-audio-final"


@pytest.fixture(scope="session")
def featured_sample(prepared_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the prepared sample with `avhubert-audio-final`. Tests must not change it."""
    folder = tmp_path_factory.mktemp("featured")
    root = Path(shutil.copytree(prepared_sample, folder / "sample"))
    extractor = load_avhubert(make_tiny_checkpoint(folder / "untrained.safetensors"))
    for shard in unfinished_shards(root, extractor):
        extract_shard(root, shard, extractor)
    write_manifest(StorePaths(root))
    return root


@pytest.fixture
def val(featured_sample: Path) -> Dataset:
    return open_dataset(featured_sample, "val")
