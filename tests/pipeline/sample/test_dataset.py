"""The sample data set is what it says: synchronous, readable, with one broken clip, the same every time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from syncdiff.pipeline.datasets.listing import read_layout
from syncdiff.pipeline.datasets.transcripts import with_text
from syncdiff.pipeline.faces.dlib import DlibBackend
from syncdiff.pipeline.faces.head_pose import mouth_opening
from syncdiff.pipeline.faces.track import track_faces
from syncdiff.pipeline.features.av_sync import av_correlation, loudness
from syncdiff.pipeline.media.read import open_video, read_audio
from syncdiff.pipeline.records import ClipError
from syncdiff.pipeline.sample.dataset import BAD_CLIP, SPEAKERS, TRUTH, make_sample
from syncdiff.pipeline.sample.faces import Head, Portrait
from syncdiff.pipeline.sample.speech import speak_opening, syllables, synthesise


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sample(tmp_path_factory.mktemp("sample") / "raw", train_clips=1)


@pytest.fixture(scope="module")
def truth(sample: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads((sample / TRUTH).read_text())
    return known


def test_it_is_an_lrs2_with_both_speakers_in_each_split(sample: Path, truth: dict[str, Any]) -> None:
    listing = read_layout("lrs2", sample)
    assert not listing.rejects and not listing.notes
    for split in ("train", "val", "test"):
        assert {clip.speaker_id for clip in listing.clips if clip.split == split} == set(SPEAKERS)
    assert {clip.id for clip in listing.clips} == {*truth["clips"], *truth["bad"]}
    for clip in listing.clips:
        text = with_text("lrs2", sample, clip).transcript
        assert text is not None and text == text.upper() and set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ ")


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_mouth_and_sound_go_together(sample: Path, truth: dict[str, Any], speaker: str) -> None:
    clip = next(
        clip for clip in read_layout("lrs2", sample, splits=["test"]).clips if clip.speaker_id == speaker
    )
    known = truth["clips"][clip.id]
    opening = np.array(known["opening"])
    pcm = read_audio(clip.path)
    assert pcm is not None and abs(len(pcm) - 640 * len(opening)) <= 640
    level = loudness(pcm, len(opening))
    assert np.corrcoef(opening, level)[0, 1] >= 0.95
    (track,) = track_faces(open_video(clip.path).chunks(), DlibBackend()).tracks
    assert len(track) == len(opening) and track.detected.all()
    assert np.median(track.boxes_px[:, 2] - track.boxes_px[:, 0]) >= 100
    measured = mouth_opening(track.landmarks_px)
    assert np.corrcoef(opening, measured)[0, 1] >= 0.97
    lag, r = av_correlation(measured, level)
    assert lag == known["av_lag_frames"] == 0
    assert r is not None and r > 0.9


def test_decoded_sound_is_where_it_was_put(sample: Path) -> None:
    """AAC delays by 1024 samples or more unless the container says so; measured on pauses and syllables."""
    clip = read_layout("lrs2", sample, splits=["test"]).clips[0]
    known = json.loads((sample / TRUTH).read_text())["clips"][clip.id]["opening"]
    pcm = read_audio(clip.path)
    assert pcm is not None
    time_s = np.arange(len(pcm)) / 16_000
    level = np.interp(time_s, (np.arange(len(known)) + 0.5) / 25, known)
    heard = np.convolve(np.abs(pcm / 32768.0), np.hanning(800), "same")
    shifts = range(-1600, 1601, 40)
    middle = slice(1600, -1600)
    r = [np.corrcoef(np.roll(level, shift)[middle], heard[middle])[0, 1] for shift in shifts]
    assert abs(shifts[int(np.argmax(r))]) <= 320  # 20 ms


def test_the_bad_clip_is_bad(sample: Path) -> None:
    with pytest.raises(ClipError) as error:
        list(open_video(sample / "mvlrs_v1/main" / f"{BAD_CLIP}.mp4").chunks())
    assert error.value.stage == "media"


def test_same_seed_same_bytes(sample: Path, tmp_path: Path) -> None:
    def digest(root: Path) -> dict[str, str]:
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }

    with_training, without = digest(sample), digest(make_sample(tmp_path / "again", train_clips=0))
    held_out = [name for name in without if name.endswith(".mp4")]
    assert len(held_out) == 7
    assert {name: with_training[name] for name in held_out} == {name: without[name] for name in held_out}
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_existing_folders_are_respected(sample: Path, tmp_path: Path) -> None:
    before = (sample / TRUTH).stat().st_mtime_ns
    assert make_sample(sample, train_clips=1) == sample
    assert (sample / TRUTH).stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="another recipe"):
        make_sample(sample, train_clips=1, seed=1)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="something else"):
        make_sample(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_portrait_mouth_follows_over_the_whole_range() -> None:
    portrait, backend = Portrait(), DlibBackend()
    driven = np.linspace(0, 1, 12)
    measured = []
    for opening in driven:
        frame = portrait.frame(float(opening), Head(roll_deg=3.0, shift_px=(4.0, -2.0), turn_px=(3.0, 2.0)))
        assert frame.shape == (224, 224, 3) and frame.dtype == np.uint8
        faces = backend.detect(frame)
        assert len(faces) == 1
        measured.append(
            mouth_opening(backend.fit(frame, faces.boxes_px, np.zeros(1, np.float32)).landmarks_px)[0]
        )
    assert np.corrcoef(driven, measured)[0, 1] > 0.98
    assert measured[-1] > 0.28 and measured[0] < 0.05


def test_speech_is_varied_and_has_pauses() -> None:
    rng = np.random.default_rng(3)
    opening = speak_opening(1000, rng)
    assert opening.min() == 0 and 0.85 < opening.max() <= 1
    rate_hz = len(syllables(opening)) / (np.count_nonzero(opening > 0.02) / 25)
    assert 3 <= rate_hz <= 5.5
    pcm = synthesise(opening, 120.0, rng)
    assert pcm.dtype == np.int16 and len(pcm) == 640_000
    assert 2000 < np.abs(pcm).max() < 32767  # loud enough, and never clipped


def test_sound_of_a_closed_mouth() -> None:
    pcm = synthesise(np.zeros(30), 120.0, np.random.default_rng(0))
    assert 0 < np.abs(pcm).max() < 2000
