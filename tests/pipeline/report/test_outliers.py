"""Rows worth a look: those that stand out, each once, and a spread of the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from syncdiff.pipeline.faces.align import crop_matrices
from syncdiff.pipeline.report.outliers import choose_rows, crop_jumps
from syncdiff.pipeline.report.summary import summarise
from syncdiff.pipeline.store.read import open_dataset

SIZE = 64


def test_rows_that_stand_out_are_chosen_and_the_rest_is_spread(
    tmp_path: Path,
    make_record: Callable[..., dict[str, Any]],
    write_store: Callable[..., Path],
    face_points: Callable[..., np.ndarray[Any, Any]],
) -> None:
    def turned(yaw: float) -> np.ndarray[Any, Any]:
        pose = np.zeros((30, 3), np.float32)
        pose[20, 1] = yaw
        return pose

    jumping = crop_matrices(face_points(30), SIZE)
    jumping[12:, :, 2] += 5
    planted: dict[int, tuple[str, dict[str, Any]]] = {
        3: ("coverage", {"coverage": 0.5}),
        7: ("faces", {"num_faces": 2}),
        11: ("lag", {"av_lag_frames": -8, "av_correlation": 0.8}),
        15: ("correlation", {"av_correlation": 0.05, "av_lag_frames": 9}),
        19: ("turn", {"head_pose_deg": turned(-60)}),
        23: ("opening", {"mouth_opening": np.full(30, 0.9, np.float32)}),
        27: ("size", {"interocular_px": 8.0}),
        31: ("sharpness", {"sharpness": 1.0}),
        35: ("damage", {"source_damage": "x"}),
        39: ("jump", {"crop_matrix": jumping}),
    }
    records = [make_record(f"c/{k}", **(planted[k][1] if k in planted else {})) for k in range(60)]
    dataset = open_dataset(write_store(tmp_path, records))
    choices = choose_rows(dataset, summarise(dataset), 15)
    assert [c.row for c in choices] == [c.row for c in choose_rows(dataset, summarise(dataset), 15)]
    assert len({c.row for c in choices}) == len(choices) == 15
    found = {(c.criterion.key, c.row) for c in choices if c.criterion is not None}
    assert {(key, row) for row, (key, _) in planted.items()} < found
    spread = [c.row for c in choices if c.criterion is None]
    assert len(spread) == 4
    assert np.ptp(spread) > 40


@pytest.mark.parametrize("sheets", [0, 1, 2, 5, 13, 14, 15, 100])
def test_never_more_sheets_than_asked_for_and_none_twice(store: Path, sheets: int) -> None:
    dataset = open_dataset(store)
    rows = [c.row for c in choose_rows(dataset, summarise(dataset), sheets)]
    assert len(rows) == len(set(rows)) == min(sheets, 14)


def test_crop_jumps_measure_moves_and_growth_within_a_row() -> None:
    still = np.array([[0.5, 0, 3], [0, 0.5, 4]])
    moved = still + np.array([[0, 0, 8], [0, 0, 0]])  # 8 of 64 crop pixels
    middle = (64 - 1) / 2
    grown = np.array(
        [[1, 0, middle - 2 * (middle - 3)], [0, 1, middle - 2 * (middle - 4)]]
    )  # about the same centre
    matrices = np.stack([still, still, moved, still, grown])
    jumps = crop_jumps(matrices, np.full(5, 64.0), np.array([3, 2]))
    np.testing.assert_allclose(jumps, [0, 0, 8 / 64, 0, np.log(2)], atol=1e-12)
    assert np.isnan(crop_jumps(np.zeros((2, 2, 3)), np.full(2, 64.0), np.array([2]))[1])
