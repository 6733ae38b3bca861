"""What a data set holds, in numbers: right, per split, whatever the batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncdiff.pipeline.report.summary import Summary, summarise
from syncdiff.pipeline.store.read import open_dataset


def test_the_numbers_are_right(store: Path) -> None:
    summary = summarise(open_dataset(store))
    (split,) = summary.splits
    assert (split.inputs, split.prepared, split.rejects, split.rows, split.frames) == (19, 14, 5, 14, 14 * 30)
    assert (summary.speakers, split.speakers) == (1, 1)
    assert (summary.rows_with_sound, summary.rows_with_transcript, summary.rows_with_words) == (13, 1, 0)
    assert (summary.damaged_rows, summary.crowded_rows) == (1, 1)
    assert summary.hours == pytest.approx(14 * 1.2 / 3600)
    assert [(r.stage, r.reason, r.number, r.transient) for r in summary.rejects] == [
        ("track", "no-face", 4, 0),
        ("media", "read-error", 1, 1),
    ]
    assert [source for source, _ in summary.rejects[0].examples] == ["0.mp4", "1.mp4", "2.mp4"]
    assert summary.clip_bytes == sum(p.stat().st_size for p in (store / "clips").iterdir())
    lag = summary.distribution("av_lag_frames")
    assert (lag.number, lag.missing, lag.median, lag.minimum, lag.maximum) == (13, 1, 0, 0, 9)
    assert summary.distribution("coverage").minimum == pytest.approx(60)
    assert summary.distribution("mouth_opening").number == 14 * 30
    assert sum(map(sum, summary.joints[0].counts)) == 13
    assert ("mask.kind", "lower-half") in summary.config


def test_one_split_alone_counts_only_its_own(store: Path) -> None:
    assert summarise(open_dataset(store, "train")) == Summary(
        **{**vars(summarise(open_dataset(store))), "split": "train"}
    )


def test_nothing_depends_on_the_batches(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = summarise(open_dataset(store))
    monkeypatch.setattr("syncdiff.pipeline.report.summary.BATCH_ROWS", 3)
    assert summarise(open_dataset(store)) == whole
