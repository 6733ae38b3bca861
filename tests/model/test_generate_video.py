"""One video, one sound: a real face, other rates and sizes, longer and shorter speech, what is refused."""

from __future__ import annotations

import subprocess
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from syncdiff.model import generate as generate_module
from syncdiff.model.generate import Model, load_model, there_and_back
from syncdiff.model.generate_video import dub
from syncdiff.model.video_faces import exact_rate, frames_in_order, open_at_own_rate, speakers, write_playable
from syncdiff.pipeline.media.ffmpeg import ffmpeg_binary
from syncdiff.pipeline.media.probe import MediaInfo, probe
from syncdiff.pipeline.media.read import open_video, read_audio
from syncdiff.pipeline.records import ClipError, Track
from syncdiff.pipeline.sample.faces import Portrait, sway
from syncdiff.pipeline.sample.speech import speak_opening, synthesise

FRAMES = 36


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return load_model(trained, "cpu")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portrait that speaks: 36 frames of 224x224 at 30 per second, with sound."""
    rng = np.random.default_rng(0)
    opening = speak_opening(FRAMES, rng)
    portrait = Portrait()
    pictures = [portrait.frame(gap, head) for gap, head in zip(opening, sway(FRAMES, rng), strict=True)]
    path = tmp_path_factory.mktemp("dub") / "spoken.mp4"
    pcm = synthesise(speak_opening(30, rng), 200.0, rng)
    write_playable(path, pictures, Fraction(30), pcm)
    return path


def speech(path: Path, seconds: float, level: float = 1.0) -> Path:
    rng = np.random.default_rng(3)
    pcm = synthesise(speak_opening(round(seconds * 25), rng), 150.0, rng)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((pcm * level).astype("<i2").tobytes())
    return path


def frames(path: Path, rate: int = 30) -> np.ndarray:
    return np.concatenate(list(open_video(path, fps=Fraction(rate)).chunks()))


@pytest.mark.parametrize(("seconds", "rule"), [(0.8, "cut"), (1.2, ""), (2.2, "run backwards and forwards")])
def test_the_result_lasts_as_long_as_the_speech(
    seconds: float, rule: str, model: Model, spoken: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    sound = speech(tmp_path / "s.wav", seconds)
    out = tmp_path / "out.mp4"
    done = dub(model, spoken, sound, out, 4, said.append)
    info = probe(out)
    assert done.frames == done.redrawn == round(seconds * 30)
    assert (info.width_px, info.height_px, info.source_fps) == (224, 224, 30.0)
    assert (info.video_codec, info.pixel_format, info.audio_codec) == ("h264", "yuv420p", "aac")
    assert (
        any(rule in line for line in said) if rule else not any("the speech lasts" in line for line in said)
    )
    generated, source = frames(out), frames(spoken)
    assert len(generated) == done.frames
    order = there_and_back(FRAMES, done.frames)
    above = np.abs(generated[:, :90].astype(float) - source[order][:, :90])
    assert above.mean() < 3, "what lies outside the mask is the source's, in the order of the rule"
    heard, true = read_audio(out), read_audio(sound)
    assert heard is not None and true is not None
    n = min(len(heard), len(true))
    assert np.corrcoef(heard[:n], true[:n])[0, 1] > 0.9


def test_own_sound_and_own_rate(model: Model, spoken: Path, tmp_path: Path) -> None:
    done = dub(model, spoken, None, tmp_path / "out.mp4", 4, lambda text: None)
    assert done.rate == 30 and done.frames == FRAMES
    heard, true = read_audio(tmp_path / "out.mp4"), read_audio(spoken)
    assert heard is not None and true is not None
    lags = range(-400, 401, 40)
    n = min(len(heard), len(true)) - 800
    fit = [np.corrcoef(heard[400 + lag : 400 + lag + n], true[400 : 400 + n])[0, 1] for lag in lags]
    assert lags[int(np.argmax(fit))] == 0


def test_other_sizes_and_rates_are_kept(model: Model, spoken: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.mp4"
    command = [
        ffmpeg_binary(),
        "-v",
        "error",
        "-i",
        str(spoken),
        "-vf",
        "scale=300:300,pad=480:320:20:10",
        "-r",
        "30000/1001",
    ]
    subprocess.run([*command, "-c:a", "copy", str(wide)], check=True)
    out = tmp_path / "out.mp4"
    done = dub(model, wide, speech(tmp_path / "s.wav", 1.0), out, 4, lambda text: None)
    assert done.rate == Fraction(30000, 1001)
    info = probe(out)
    assert (info.width_px, info.height_px, info.source_fps) == (480, 320, 29.97)


def test_frames_in_any_order(spoken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = frames(spoken)
    monkeypatch.setattr(generate_module, "SCRATCH_BYTES", 0)  # the way back goes by disk
    for order in ([0, 1, 5, 9], [3, 4, 5, 4, 3], [2, 2]):
        got = list(frames_in_order(spoken, Fraction(30), np.array(order)))
        assert all(np.array_equal(a, whole[i]) for a, i in zip(got, order, strict=True))
    with pytest.raises(ClipError, match="too-short"):
        list(frames_in_order(spoken, Fraction(30), np.array([0, FRAMES + 5])))


@pytest.mark.parametrize(
    ("stated", "exact"),
    [
        (25.0, Fraction(25)), (30.0, Fraction(30)), (12.5, Fraction(25, 2)), (17.36, Fraction(434, 25)),
        (29.97, Fraction(30000, 1001)), (23.98, Fraction(24000, 1001)), (59.94, Fraction(60000, 1001)),
    ],
)  # fmt: skip
def test_rates_are_read_exactly(stated: float, exact: Fraction) -> None:
    assert exact_rate(MediaInfo(True, False, 1.0, source_fps=stated)) == exact


def test_of_faces_seen_together_one_speaks(spoken: Path) -> None:
    def track(start: int, length: int, side: float) -> Track:
        box = np.tile(np.float32([10, 10, 10 + side, 10 + side]), (length, 1))
        points = np.random.default_rng(0).uniform(10, 10 + side, (68, 2)).astype(np.float32)
        return Track(
            start,
            box,
            np.tile(points, (length, 1, 1)),
            np.ones(length, np.float32),
            np.ones(length, np.bool_),
        )

    large, small, later = track(0, 20, 100), track(5, 10, 40), track(25, 11, 40)
    chosen = speakers((small, later, large), FRAMES, None, open_at_own_rate(spoken))
    assert [(one.start_frame, len(one)) for one in chosen] == [(0, 20), (25, 11)]


def test_a_video_without_sound_cannot_speak_by_itself(model: Model, tmp_path: Path) -> None:
    mute = tmp_path / "mute.mp4"
    write_playable(mute, [np.zeros((64, 64, 3), np.uint8)] * 30, Fraction(25), None)
    with pytest.raises(ClipError, match="no-sound"):
        dub(model, mute, None, tmp_path / "out.mp4", 4)
    assert not (tmp_path / "out.mp4").exists()


def test_a_video_without_a_face_is_refused(model: Model, tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (120, 160, 3)).astype(np.uint8)
    write_playable(empty, [picture] * 30, Fraction(25), None)
    with pytest.raises(ClipError, match="no-face"):
        dub(model, empty, speech(tmp_path / "s.wav", 1.0), tmp_path / "out.mp4", 4)
    assert not (tmp_path / "out.mp4").exists()


def test_silent_lasts_as_long_as_the_video(model: Model, spoken: Path, tmp_path: Path) -> None:
    done = dub(model, spoken, None, tmp_path / "out.mp4", 4, lambda text: None, silent=True)
    assert done.frames == done.redrawn == FRAMES
    heard = read_audio(tmp_path / "out.mp4")
    assert heard is not None and np.abs(heard).max() <= 1
    own = tmp_path / "own.mp4"
    dub(model, spoken, None, own, 4, lambda text: None)
    assert (frames(tmp_path / "out.mp4") != frames(own)).any()
