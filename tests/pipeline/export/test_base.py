"""What all exports share: names, pictures from crops or sources, files that appear whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncdiff.pipeline.export.base import (
    LeftOutError,
    export_clips,
    flat_name,
    folder_name,
    pictures_of,
    write_whole,
)
from syncdiff.pipeline.faces.align import crop_faces
from syncdiff.pipeline.store.read import Dataset

parts = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1)


@given(parts)
def test_folder_names_are_safe_and_reveal_nothing_outside(name: str) -> None:
    safe = folder_name(f"folder/train/{name}")
    split, folder = safe.split("/")
    assert split == "train"
    assert not folder.startswith((".", "-")) and not set(folder) & set(" '\"\n$&;|<>\\*?+,")


@given(st.lists(st.lists(parts, min_size=1, max_size=3), min_size=2, max_size=4, unique_by=tuple))
def test_flat_names_are_as_unique_as_the_clips(paths: list[list[str]]) -> None:
    names = {flat_name("/".join(["folder", "train", *path])) for path in paths}
    assert len(names) == len(paths) and not any("/" in name for name in names)


def test_whole_frames_of_the_source_give_the_stored_crops_again(val: Dataset, sample_raw: Path) -> None:
    clip = val[0]
    pictures = pictures_of(clip, sample_raw)
    frames = np.stack(list(pictures.frames))
    assert frames.shape == (clip.num_frames, pictures.height_px, pictures.width_px, 3)
    crops = crop_faces(frames, clip.column("crop_matrix"), clip.value("face_size_px"))
    assert np.abs(crops.astype(int) - clip.frames()).mean() < 2  # JPEG
    inside = pictures_of(clip, None)
    assert np.abs(inside.landmarks_px - inside.landmarks_px.clip(0, inside.width_px)).max() == 0
    assert (inside.boxes_px[:, :2] < inside.boxes_px[:, 2:]).all()


def test_a_source_that_is_gone_or_another_is_a_row_left_out(
    val: Dataset, sample_raw: Path, tmp_path: Path
) -> None:
    clip = val[0]
    with pytest.raises(LeftOutError, match="not there"):
        next(pictures_of(clip, tmp_path).frames)
    other = tmp_path / clip.value("source")
    other.parent.mkdir(parents=True)
    shutil.copy(next(p for p in sample_raw.rglob("*.mp4") if p.name != other.name), other)
    with pytest.raises(LeftOutError, match="another file"):
        next(pictures_of(clip, tmp_path).frames)


def test_a_file_that_cannot_be_finished_is_not_there(val: Dataset, tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "a" / "file.mp4", fails)
    assert list((tmp_path / "a").iterdir()) == []

    def leaves_out(path: Path) -> None:
        raise LeftOutError("no reason")

    counts, clips = export_clips(val, lambda clip: {tmp_path / "b.mp4": leaves_out})
    assert counts.left_out == {"no reason": len(val)} and clips == []
