"""References from a prepared data set: as videos, pixel by pixel what the rows hold."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from syncdiff.evaluate.pairing.dataset_references import (
    StoredClip,
    list_stored,
    short_name,
    write_stored,
)
from syncdiff.pipeline.file_hash import sha256_file
from syncdiff.pipeline.media.read import open_video, read_audio
from syncdiff.pipeline.records import ClipError
from syncdiff.pipeline.store.read import open_dataset


def test_rows_are_listed_by_the_names_that_results_have(prepared_sample: Path, tmp_path: Path) -> None:
    dataset = open_dataset(prepared_sample)
    stored = list_stored(prepared_sample, tmp_path)
    assert list(stored.videos) == [short_name(clip.clip_id) for clip in dataset]
    assert set(stored.rows) == set(stored.videos.values())
    assert not any(path.exists() for path in stored.rows)
    split = dataset[0].value("split")
    part = list_stored(prepared_sample, tmp_path, split=split)
    assert set(part.videos) == {short_name(clip.clip_id) for clip in open_dataset(prepared_sample, split)}


def test_a_row_is_written_as_it_is_stored(prepared_sample: Path, tmp_path: Path) -> None:
    clip = open_dataset(prepared_sample)[0]
    stored = list_stored(prepared_sample, tmp_path)
    path = stored.videos[short_name(clip.clip_id)]
    write_stored(stored.rows[path], path)
    assert np.array_equal(np.concatenate(list(open_video(path).chunks())), clip.frames())
    sound = clip.audio()
    assert sound is not None and np.array_equal(read_audio(path), sound)
    before = path.stat().st_mtime_ns
    write_stored(stored.rows[path], path)
    assert path.stat().st_mtime_ns == before


def test_with_the_raw_data_references_are_the_sources(
    prepared_sample: Path, sample_raw: Path, tmp_path: Path
) -> None:
    clip = open_dataset(prepared_sample)[0]
    stored = list_stored(prepared_sample, tmp_path, raw=sample_raw)
    path = stored.videos[short_name(clip.clip_id)]
    assert path == sample_raw / clip.value("source") and path.is_file()
    assert path not in stored.rows


def test_a_part_of_a_raw_file_is_that_part(tmp_path: Path, media: ModuleType) -> None:
    frames = media.moving_frames(12, 48, 32)
    source = media.picture_clip(tmp_path / "long.mkv", frames, "-c:v", "ffv1", "-pix_fmt", "bgr0")
    clip = StoredClip(tmp_path, "folder/all/long@4", source, sha256_file(source), 4, 5)
    write_stored(clip, tmp_path / "part.mkv")
    assert np.array_equal(np.concatenate(list(open_video(tmp_path / "part.mkv").chunks())), frames[4:9])


def test_a_raw_file_that_is_another_or_gone_is_refused(tmp_path: Path, media: ModuleType) -> None:
    source = media.picture_clip(tmp_path / "a.mkv", media.moving_frames(4, 32, 32))
    for path, reason in ((source, "other-source"), (tmp_path / "gone.mkv", "no-source")):
        with pytest.raises(ClipError) as caught:
            write_stored(StoredClip(tmp_path, "x", path, "0" * 64, 1, 2), tmp_path / "out.mkv")
        assert (caught.value.stage, caught.value.reason) == ("pair", reason)
