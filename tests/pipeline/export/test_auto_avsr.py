"""auto_avsr's mouths and landmarks; tests/originals compares the mouths with auto_avsr's own program."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from syncdiff.pipeline.export.auto_avsr import (
    MEAN_FACE_PX,
    STABLE_POINTS,
    export_auto_avsr,
    export_landmarks,
    load_tokens,
    mouth_patches,
)
from syncdiff.pipeline.export.base import LeftOutError
from syncdiff.pipeline.media.read import open_video
from syncdiff.pipeline.store.read import Dataset


def face_of_the_mean(shift: float = 0.0) -> np.ndarray:
    """Landmarks [1,68,2] whose stable points are the mean face's; the mouth lies `shift` pixels lower."""
    points = np.zeros((1, 68, 2), np.float32)
    points[0, list(STABLE_POINTS)] = MEAN_FACE_PX
    points[0, 49:54] = points[0, 55:68] = (130, 160 + shift)
    return points


def test_a_face_that_lies_as_the_mean_face_is_only_cut() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    points = face_of_the_mean()
    (patch,) = mouth_patches(iter([picture]), points)
    x, y = points[0, 48:68].mean(axis=0)
    x0, y0 = round(float(x) - 48), round(float(y) - 48)
    np.testing.assert_allclose(patch, picture[y0 : y0 + 96, x0 : x0 + 96], atol=12)


def test_a_mouth_outside_the_canvas_is_left_out() -> None:
    picture = np.zeros((256, 256, 3), np.uint8)
    with pytest.raises(LeftOutError, match="outside"):
        list(mouth_patches(iter([picture]), face_of_the_mean(shift=80)))


def test_videos_sound_and_text(val: Dataset, sample_raw: Path, tmp_path: Path) -> None:
    assert export_auto_avsr(val, tmp_path, sample_raw).written == len(val)
    for clip in val:
        name = clip.clip_id.partition("/")[2]
        video = tmp_path / "lrs2" / "lrs2_video_seg16s" / f"{name}.mp4"
        shown = np.concatenate(list(open_video(video).chunks()))
        assert shown.shape == (clip.num_frames, 96, 96, 3)
        assert video.with_suffix(".wav").is_file()
        text = tmp_path / "lrs2" / "lrs2_text_seg16s" / f"{name}.txt"
        assert text.read_text() == clip.value("transcript")
    assert not (tmp_path / "labels").exists()  # they need auto_avsr's units


def test_landmarks_of_every_frame_of_a_source(val: Dataset, sample_raw: Path, tmp_path: Path) -> None:
    counts = export_landmarks(val, tmp_path, sample_raw)
    assert counts.written == len(val)
    for clip in val:
        data = (tmp_path / clip.value("source")).with_suffix(".pkl").read_bytes()
        assert b"numpy._core" not in data  # NumPy 1, which auto_avsr runs with, has no such module
        points = pickle.loads(data)
        detected = clip.column("detected")
        start = clip.value("start_frame")
        assert len(points) >= start + clip.num_frames
        assert [p is not None for p in points[start : start + clip.num_frames]] == detected.tolist()
        np.testing.assert_array_equal(points[start], clip.column("landmarks_px")[0])
    assert export_landmarks(val, tmp_path / "none", tmp_path).left_out == {
        "the source cannot be read": len(val)
    }


def test_files_that_are_no_units_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    (tmp_path / "m").write_text("no model")
    (tmp_path / "u").write_text("a 1\n")
    with pytest.raises(ValueError, match="no SentencePiece model"):
        load_tokens(tmp_path / "m", tmp_path / "u")
