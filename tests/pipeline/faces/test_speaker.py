"""The speaker among several faces: by sound first, then by size and place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from syncdiff.pipeline.faces.backend import MEAN_SHAPE, box_of_shape
from syncdiff.pipeline.faces.dlib import DlibBackend
from syncdiff.pipeline.faces.speaker import choose_speaker, rank_speakers
from syncdiff.pipeline.faces.track import track_faces
from syncdiff.pipeline.features.av_sync import loudness
from syncdiff.pipeline.media.probe import probe
from syncdiff.pipeline.media.read import fit_audio, open_video, read_audio
from syncdiff.pipeline.records import F32, Track

SIZE = (640, 360)
FRAMES = 150


def syllables(seed: int, frames: int = FRAMES) -> F32:
    """A mouth that opens and closes a few times a second, 0 to 1."""
    steps = np.random.default_rng(seed).uniform(0, 1, frames // 4 + 2)
    return np.interp(np.arange(frames) / 4, np.arange(len(steps)), steps).astype(np.float32)


def face(opening: F32, x: float = 320, y: float = 180, side: float = 100, start: int = 0) -> Track:
    shapes = np.repeat((MEAN_SHAPE[None] - 0.5) * side + (x, y), len(opening), axis=0).astype(np.float32)
    shapes[:, 65:68, 1] += opening[:, None] * side * 0.2
    ones = np.ones(len(opening), np.float32)
    return Track(start, box_of_shape(shapes)[0], shapes, ones, ones > 0)


def level(opening: F32) -> F32:
    """Loudness in dB of a voice that follows the mouth."""
    return np.asarray(-50 + 40 * opening, np.float32)


def test_the_face_that_moves_with_the_sound_speaks() -> None:
    speech = syllables(1)
    listener = face(syllables(2), side=200)
    speaker = face(speech, x=100, y=60, side=60)
    first, second = rank_speakers([listener, speaker], level(speech), SIZE)
    assert (first.index, first.speaks, second.speaks) == (1, True, False)
    assert first.correlation is not None and first.correlation > 0.9 and first.lag_frames == 0
    assert choose_speaker([listener, speaker], level(speech), SIZE) == (1, 0)


def test_sound_that_comes_early_is_still_his() -> None:
    speech = syllables(3, FRAMES + 6)
    tracks = [face(syllables(4)), face(speech[:FRAMES])]
    (best, _) = rank_speakers(tracks, level(speech[6:]), SIZE)
    assert (best.index, best.lag_frames) == (1, -6)


def test_of_two_pictures_of_the_speaker_the_larger_is_taken() -> None:
    speech = syllables(5)
    inset, full = face(speech, x=60, y=300, side=50), face(speech, side=180)
    assert choose_speaker([inset, full], level(speech), SIZE) == (1, 0)


@pytest.mark.parametrize("sound", ["none", "silence", "music"])
def test_without_evidence_size_and_place_decide(sound: str) -> None:
    levels = {
        "none": None,
        "silence": np.full(FRAMES, -100, np.float32),
        "music": level(syllables(9)),
    }
    still = np.zeros(FRAMES, np.float32)
    corner, middle, small = face(still, x=60, y=60), face(still), face(still, side=70)
    assert choose_speaker([corner, small, middle], levels[sound], SIZE)[0] == 2


def test_a_short_track_gives_way_to_a_long_one() -> None:
    brief, long = face(np.zeros(20, np.float32), side=110), face(np.zeros(150, np.float32), side=100)
    assert choose_speaker([brief, long], None, SIZE) == (1, 0)


def test_tracks_hear_their_own_stretch_of_the_sound() -> None:
    speech = syllables(6, 300)
    late = face(speech[150:], start=150)
    (only,) = rank_speakers([late], level(speech), SIZE)
    assert only.lag_frames == 0 and only.correlation is not None and only.correlation > 0.9


def test_sound_that_ends_before_the_track() -> None:
    speech = syllables(7)
    (only,) = rank_speakers([face(speech)], level(speech)[:100], SIZE)
    assert only.correlation is not None and only.correlation > 0.9
    assert choose_speaker([face(speech, start=200)], level(speech), SIZE) == (0,)


def test_nobody() -> None:
    assert choose_speaker([], level(syllables(8)), SIZE) == ()


def test_a_real_interview(realdata: Path) -> None:
    """Two men; the left one's voice is the louder, and his mouth is closed while the other is heard alone."""
    clip = realdata / "twoface_interview.mp4"
    info = probe(clip)
    pcm = read_audio(clip, info=info)
    assert pcm is not None
    result = track_faces(open_video(clip, info=info).chunks(), DlibBackend())
    assert [len(track) for track in result.tracks] == [result.num_frames] * 2
    level_db = loudness(fit_audio(pcm, result.num_frames)[0], result.num_frames)
    first, second = rank_speakers(result.tracks, level_db, (info.width_px, info.height_px))
    assert result.tracks[first.index].boxes_px[0, 0] < result.tracks[second.index].boxes_px[0, 0]
    assert first.speaks and not second.speaks
