"""AVH-Align's features and lists."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from syncdiff.pipeline.export.avh_align import export_avh_align
from syncdiff.pipeline.store.read import Dataset

from .conftest import FEATURES


def test_features_and_lists_agree(val: Dataset, tmp_path: Path) -> None:
    assert export_avh_align(val, tmp_path).written == len(val)
    with (tmp_path / "val_labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    for clip, row in zip(val, rows, strict=True):
        with np.load(tmp_path / "val" / row["path"].replace(".mp4", ".npz")) as stored:
            assert stored.files == ["audio"]  # the data set holds no features of pictures
            np.testing.assert_array_equal(stored["audio"], clip.features(FEATURES).astype(np.float32))
        assert (row["label"], int(row["num_frames"])) == ("0", clip.num_frames)


def test_without_features_of_the_layer_it_says_how_to_get_them(val: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="syncdiff-prep features avhubert"):
        export_avh_align(val, tmp_path, layer="9")
