"""Speech units: the nearest centre, the same for the same seed, files that hold nothing else."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from syncdiff.pipeline.features.kmeans import Clusters, assign, fit, load, save
from syncdiff.pipeline.store.read import open_dataset

values = st.floats(-10, 10, width=32)


@given(arrays.arrays(np.float32, (5, 3), elements=values), arrays.arrays(np.float32, (4, 3), elements=values))
def test_a_step_belongs_to_its_nearest_centre(steps: np.ndarray, centres: np.ndarray) -> None:
    chosen = assign(Clusters("x", centres), steps)
    distance = np.linalg.norm(steps[:, None].astype(np.float64) - centres, axis=2)
    np.testing.assert_allclose(distance[np.arange(5), chosen], distance.min(axis=1), atol=1e-5)


def test_the_same_seed_learns_the_same_units(prepared_sample: Path, tmp_path: Path) -> None:
    dataset = open_dataset(prepared_sample, "val")
    first, distance = fit(dataset, "logfbank", 6, seed=1)
    again, _ = fit(dataset, "logfbank", 6, seed=1)
    np.testing.assert_array_equal(first.centres, again.centres)
    assert first.centres.shape == (6, 104)
    assert distance < fit(dataset, "logfbank", 2, seed=1)[1]
    save(first, tmp_path / "units.npz")
    kept = load(tmp_path / "units.npz")
    assert kept.extractor_id == "logfbank"
    np.testing.assert_array_equal(kept.centres, first.centres)
    with pytest.raises(ValueError, match="cannot make"):
        fit(dataset, "logfbank", 100_000)


def test_files_that_hold_no_units_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no")
    (tmp_path / "pickled.npz").write_bytes(pickle.dumps({"centres": 1}))
    np.savez(tmp_path / "other.npz", centres=np.zeros(3), extractor_id="x")
    for name in ("text", "pickled.npz", "other.npz", "absent.npz"):
        with pytest.raises(ValueError, match=name):
            load(tmp_path / name)
    with pytest.raises(ValueError, match="width"):
        assign(Clusters("x", np.zeros((2, 3), np.float32)), np.zeros((4, 5), np.float32))
