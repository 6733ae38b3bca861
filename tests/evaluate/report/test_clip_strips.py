"""Pictures of the worst and best clips: the right frames, and a note instead of what cannot be shown."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from syncdiff.evaluate.clip_pair import Faces
from syncdiff.evaluate.records import Case
from syncdiff.evaluate.report.clip_strips import (
    EXCERPT_FRAMES,
    Excerpt,
    choose_clips,
    draw_clips,
    mouth_boxes,
    ranking_column,
)
from syncdiff.evaluate.report.tables import make_results
from syncdiff.pipeline.faces.backend import FaceBackend
from syncdiff.pipeline.faces.track import make_backend

from .synthetic_evaluation import synthetic


@pytest.fixture(scope="module")
def backend() -> FaceBackend:
    return make_backend("dlib")


def decoded(address: str) -> np.ndarray:
    head, data = address.split(",", 1)
    assert head == "data:image/jpeg;base64"
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(picture)


@pytest.fixture(scope="module")
def bars(media: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second without face, with a brighter picture each frame."""
    levels = np.arange(12, dtype=np.uint8)[:, None, None, None] * 20
    frames = np.broadcast_to(levels, (12, 64, 64, 3)).copy()
    return media.picture_clip(tmp_path_factory.mktemp("strips") / "bars.mkv", frames)


def test_frames_run_left_to_right_generated_above_reference(bars: Path, backend: FaceBackend) -> None:
    (drawn,) = draw_clips([Case("m", "bars", bars, bars, bars)], backend, 100_000)
    picture = decoded(drawn.frames)
    brightness = picture[10].mean(axis=1)
    assert brightness[10] < 30 < 150 < brightness[-10]
    middle = picture.shape[0] // 2
    np.testing.assert_allclose(picture[10].mean(), picture[middle + 20].mean(), atol=6)
    assert drawn.paired
    assert drawn.mouths == drawn.slices == ""
    assert any("no-face" in note for note in drawn.notes)


def test_without_reference_there_is_one_row(bars: Path, backend: FaceBackend) -> None:
    case = Case("m", "bars", bars, None, bars)
    single, pair = draw_clips([case, replace(case, reference=bars)], backend, 100_000)
    assert decoded(single.frames).shape[0] < decoded(pair.frames).shape[0] / 1.8
    assert not single.paired


def test_unreadable_file_becomes_a_note(tmp_path: Path, bars: Path, backend: FaceBackend) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"nothing of a video")
    drawn, other = draw_clips(
        [Case("m", "broken", broken, bars, broken), Case("m", "b", bars, bars, bars)], backend, 10_000
    )
    assert drawn.frames == "" and "cannot be shown" in drawn.notes[0]
    assert other.frames


def test_only_the_first_seconds_are_read(media: ModuleType, tmp_path: Path, backend: FaceBackend) -> None:
    frames = np.zeros((EXCERPT_FRAMES + 30, 16, 16, 3), np.uint8)
    path = media.picture_clip(tmp_path / "long.mkv", frames)
    assert Excerpt(path, lambda: backend).num_frames == EXCERPT_FRAMES


def test_mouth_of_a_frame_without_face_is_the_nearest() -> None:
    landmarks = np.full((4, 68, 2), np.nan, np.float32)
    for t, x in ((1, 10.0), (3, 90.0)):
        landmarks[t] = x
        landmarks[t, 36:42, 0] -= 5
        landmarks[t, 42:48, 0] += 5
    boxes = mouth_boxes(Faces(~np.isnan(landmarks[:, 0, 0]), landmarks))
    np.testing.assert_allclose(boxes[:, 0], [10, 10, 10, 90])
    np.testing.assert_allclose(boxes[:, 2], 13.5)


def test_a_face_has_mouths_slices_and_a_chart(sample_raw: Path, backend: FaceBackend) -> None:
    clip = min(sample_raw.rglob("*.mp4"))
    (drawn,) = draw_clips([Case("m", "clip", clip, clip, clip)], backend, 120_000)
    assert drawn.notes == ()
    assert decoded(drawn.mouths).size and decoded(drawn.slices).size
    assert 'class="truth"' in drawn.chart and 'class="loudness"' in drawn.chart
    assert len(drawn.frames) + len(drawn.mouths) + len(drawn.slices) < 120_000 * 4 / 3 + 1000


def test_worst_and_best_are_chosen_by_direction() -> None:
    evaluation = synthetic(("ours",))
    column = ranking_column(make_results(evaluation))
    assert column is not None and column.key == "lse_d"
    chosen = choose_clips(evaluation, column, 3)
    assert [(one.case.clip, one.worst) for one in chosen] == [
        ("spk/007", True),
        ("spk/006", True),
        ("spk/000", False),
    ]
    by_psnr = ranking_column(make_results(evaluation), "psnr")
    assert by_psnr is not None
    assert choose_clips(evaluation, by_psnr, 1)[0].case.clip == "spk/000"
    by_offset = ranking_column(make_results(evaluation), "sync_offset")
    assert by_offset is not None and by_offset.magnitude
    with pytest.raises(ValueError, match="no value 'fid'"):
        ranking_column(make_results(evaluation), "fid")


def test_no_clip_is_both_worst_and_best() -> None:
    evaluation = synthetic(("ours",), clips=2)
    column = ranking_column(make_results(evaluation))
    assert column is not None
    names = [one.case.clip for one in choose_clips(evaluation, column, 20)]
    assert len(names) == len(set(names)) == 2
