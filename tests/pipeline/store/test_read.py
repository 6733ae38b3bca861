"""Reading by frame: what a row has is given, what it has not is an IndexError that says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from syncdiff.pipeline.store.read import ClipView, open_dataset


@pytest.fixture(scope="module")
def clip(prepared_sample: Path) -> ClipView:
    return open_dataset(prepared_sample)[0]


def test_frames_by_number_and_by_slice(clip: ClipView) -> None:
    every = clip.frames()
    assert len(every) == clip.num_frames
    np.testing.assert_array_equal(clip.frames([3, 0]), every[[3, 0]])
    np.testing.assert_array_equal(clip.masks(slice(-2, None)), clip.masks()[-2:])


@pytest.mark.parametrize("wrong", [[999], [-1], [0, -1], [10_000, 2]])
def test_a_frame_that_is_not_there_is_an_error_with_its_number(clip: ClipView, wrong: list[int]) -> None:
    for read in (clip.frames, clip.masks, clip.mouth_rois):
        with pytest.raises(IndexError, match=rf"frames 0 to {clip.num_frames - 1}; asked for"):
            read(wrong)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (5, 4), (80, 20_000), (20_000, None)])
def test_features_beyond_the_row_are_the_same_error(clip: ClipView, start: int, stop: int | None) -> None:
    for name in ("logfbank", "mel"):
        with pytest.raises(IndexError, match="asked for"):
            clip.features(name, start, stop)


def test_features_of_a_stretch(clip: ClipView) -> None:
    every = clip.features("logfbank")
    assert every is not None
    np.testing.assert_array_equal(clip.features("logfbank", 4, 9), every[4:9])
    assert len(clip.features("logfbank", clip.num_frames, clip.num_frames)) == 0  # type: ignore[arg-type]
