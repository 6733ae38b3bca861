"""What is written comes back: pictures, colours, sound and its start; it is written whole or not at all."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from syncdiff.pipeline.media.probe import probe
from syncdiff.pipeline.media.read import open_video, read_audio
from syncdiff.pipeline.media.write import LOSSLESS, PLAYABLE, SoundFile, write_video
from syncdiff.pipeline.records import U8


def decoded(path: Path) -> U8:
    return np.concatenate(list(open_video(path).chunks()))


def test_lossless_is_lossless_and_the_bytes_do_not_vary(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 34, 51, 3), np.uint8)
    sound = np.random.default_rng(1).integers(-30000, 30000, 7 * 640).astype(np.int16)
    paths = [tmp_path / "deep" / f"{k}.mkv" for k in range(2)]
    for path in paths:
        write_video(path, iter(frames), sound, LOSSLESS)
    assert np.array_equal(decoded(paths[0]), frames)
    assert np.array_equal(read_audio(paths[0]), sound)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["0.mkv", "1.mkv"]


@pytest.mark.parametrize("encoding", [LOSSLESS, PLAYABLE])
def test_without_sound_there_is_none(encoding: object, tmp_path: Path, media: ModuleType) -> None:
    write_video(tmp_path / "a", media.moving_frames(3, 32, 24), None, encoding)
    assert read_audio(tmp_path / "a") is None


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63), (2, 2)])
def test_any_size_is_playable_and_odd_sides_grow_by_a_pixel(height: int, width: int, tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(30, 220, width).astype(np.uint8)[None, None, :, None], (5, height, 1, 3))
    write_video(tmp_path / "a.mp4", ramp, None, PLAYABLE, Fraction(30000, 1001))
    info = probe(tmp_path / "a.mp4")
    assert (info.height_px, info.width_px) == (height + height % 2, width + width % 2)
    assert info.source_fps == 29.97 and not info.has_audio
    first = decoded(tmp_path / "a.mp4")[0][:height, :width].astype(float)
    assert np.abs(first - ramp[0]).mean() < 4


def test_colours_survive(tmp_path: Path) -> None:
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [220, 220, 30]], np.uint8)
    picture = np.repeat(np.repeat(colours.reshape(2, 2, 3), 32, axis=0), 32, axis=1)
    write_video(tmp_path / "a.mp4", [picture] * 3, None, PLAYABLE)
    second = decoded(tmp_path / "a.mp4")[1]
    for y, x in ((8, 8), (8, 48), (48, 8), (48, 48)):
        assert np.abs(second[y, x].astype(int) - picture[y, x]).max() <= 4


@pytest.mark.parametrize(("start_s", "expected_s"), [(0.2, 0.3), (-0.2, 0.7), (0.0, 0.5)])
def test_the_start_of_a_sound_file_is_kept(start_s: float, expected_s: float, tmp_path: Path) -> None:
    """A sound file played from 0.2 s into it, and one that starts 0.2 s late."""
    clicks = np.zeros(16000, np.int16)
    clicks[8000:8040] = 20000
    soundfile.write(tmp_path / "c.wav", clicks, 16000)
    sound = SoundFile(tmp_path / "c.wav", start_s, Fraction(1))
    write_video(tmp_path / "v.mp4", [np.zeros((16, 16, 3), np.uint8)] * 25, sound, PLAYABLE)
    heard = read_audio(tmp_path / "v.mp4")
    assert heard is not None
    assert int(np.abs(heard.astype(int)).argmax()) / 16000 == pytest.approx(expected_s, abs=0.01)


def test_a_video_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(OSError, match="no frame"):
        write_video(tmp_path / "a.mp4", [], None, PLAYABLE)
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(OSError, match=r"folder\.mp4"):
        write_video(tmp_path / "folder.mp4", [picture], None, PLAYABLE)
    with pytest.raises(OSError, match=r"ffmpeg could not write it.*No such file"):
        missing = SoundFile(tmp_path / "missing.wav", 0.0, Fraction(1))
        write_video(tmp_path / "b.mp4", [picture] * 500, missing, PLAYABLE)
    with pytest.raises(ZeroDivisionError):
        write_video(tmp_path / "c.mp4", (picture + 1 // k for k in (2, 1, 0)), None, PLAYABLE)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.mp4"]
