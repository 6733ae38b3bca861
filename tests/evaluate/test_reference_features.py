"""Features of references: found by content, never wrong, and never in the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from syncdiff.evaluate.reference_features import Item, ReferenceFeatures

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)


class Network:
    """Mean and largest value of a picture; counts what it is given."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, items: Iterator[Item]) -> np.ndarray:
        rows = [(float(picture.mean()), float(picture.max())) for (picture,) in items]
        self.seen += len(rows)
        return np.array(rows, np.float32).reshape(-1, 2)


def of(kept: ReferenceFeatures, network: Network, pictures: np.ndarray) -> np.ndarray:
    return kept.of(((picture,) for picture in pictures), network)


def test_what_is_known_is_not_computed_again(tmp_path: Path):
    network = Network()
    right = Network()((picture,) for picture in PICTURES)
    assert np.array_equal(of(ReferenceFeatures(tmp_path), network, PICTURES), right)
    assert np.array_equal(of(ReferenceFeatures(tmp_path), network, PICTURES), right)
    assert network.seen == 6


def test_another_length_or_order_takes_what_is_there(tmp_path: Path):
    network = Network()
    right = Network()((picture,) for picture in PICTURES)
    of(ReferenceFeatures(tmp_path), network, PICTURES[:4])
    order = [0, 5, 5, 2, 4, 0]
    assert np.array_equal(of(ReferenceFeatures(tmp_path), network, PICTURES[order]), right[order])
    assert network.seen == 4 + 2  # a picture that comes twice is computed once


def test_no_folder_no_pictures_a_damaged_file_or_one_in_the_way(tmp_path: Path):
    network = Network()
    right = Network()((picture,) for picture in PICTURES)
    assert np.array_equal(of(ReferenceFeatures(), network, PICTURES), right)
    assert len(of(ReferenceFeatures(tmp_path), network, PICTURES[:0])) == 0
    of(ReferenceFeatures(tmp_path), network, PICTURES)
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(of(ReferenceFeatures(tmp_path), network, PICTURES), right)
    (tmp_path / "file").write_text("no folder")
    assert np.array_equal(of(ReferenceFeatures(tmp_path / "file"), network, PICTURES), right)


def test_what_is_computed_from_two_arrays_depends_on_both(tmp_path: Path):
    kept = ReferenceFeatures(tmp_path)
    frame, points = PICTURES[0], np.arange(4.0)

    def total(items: Iterator[Item]) -> np.ndarray:
        return np.array([[frame.sum() + points.sum()] for frame, points in items])

    first = kept.of([(frame, points)], total)
    assert kept.of([(frame, points + 1)], total) == first + 4
    with pytest.raises(ZeroDivisionError):
        kept.of([(frame, points + 2)], lambda items: np.array([[1 / 0] for _ in items]))
