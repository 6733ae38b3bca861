from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncdiff.evaluate.clip_pair import ClipPair, Faces, Footage, merge_tracks, resize
from syncdiff.evaluate.format_mismatch import format_mismatch, measure_format
from syncdiff.evaluate.records import Case, FormatMismatch
from syncdiff.pipeline.faces.backend import MEAN_SHAPE, box_of_shape
from syncdiff.pipeline.faces.dlib import DlibBackend
from syncdiff.pipeline.records import ClipError, Track

from .conftest import StandIn, picture, tone

Media = Callable[..., Path]


def pair(generated: Path, reference: Path | None) -> ClipPair:
    backend = DlibBackend()
    made = Footage(generated, lambda: backend)
    return ClipPair("clip", made, Footage(reference, lambda: backend) if reference else None, made)


def mismatch(pair: ClipPair) -> FormatMismatch:
    case = Case("ours", pair.name, pair.generated.path, pair.target.path, pair.sound.path)
    return format_mismatch(case, measure_format(pair))


def track(start: int, frames: int, x: float = 50, side: float = 60) -> Track:
    shape = (MEAN_SHAPE * side + np.array([x, 40])).astype(np.float32)
    landmarks = np.tile(shape, (frames, 1, 1))
    boxes, _ = box_of_shape(landmarks)
    return Track(start, boxes, landmarks, np.ones(frames, np.float32), np.ones(frames, bool))


def test_the_overlap_is_compared(make_media: Media):
    clips = pair(make_media("long.mp4", *picture(1.4)), make_media("short.mp4", *picture(1.0)))
    assert clips.num_frames == 25
    assert sum(1 for _ in clips.frames()) == 25
    assert (mismatch(clips).frames, mismatch(clips).flagged) == (10, True)


@pytest.mark.parametrize(
    ("frames", "flagged"), [(50, False), (52, False), (48, False), (53, True), (47, True)]
)
def test_two_frames_are_tolerated(make_media: Media, frames: int, flagged: bool):
    reference = make_media("ref.mp4", *picture(2.0))
    clips = pair(make_media(f"made{frames}.mp4", *picture(frames / 25)), reference)
    assert mismatch(clips).frames == frames - 50
    assert mismatch(clips).flagged == (abs(frames - 50) > 2)


def test_five_percent_of_a_short_clip(make_media: Media):
    clips = pair(make_media("made21.mp4", *picture(21 / 25)), make_media("ref20.mp4", *picture(20 / 25)))
    assert (mismatch(clips).frames, mismatch(clips).flagged) == (1, False)
    clips = pair(make_media("made22.mp4", *picture(22 / 25)), make_media("ref20.mp4", *picture(20 / 25)))
    assert (mismatch(clips).frames, mismatch(clips).flagged) == (2, True)


def test_other_rates_are_compared_at_25(make_media: Media):
    clips = pair(make_media("made50.mp4", *picture(1.0, fps=50)), make_media("ref25.mp4", *picture(1.0)))
    assert clips.num_frames == 25
    assert (mismatch(clips).generated_fps, mismatch(clips).reference_fps) == (50.0, 25.0)
    assert mismatch(clips).frames == 0


COPIES = {
    "avi": ("copy.avi",),
    "fragmented": ("fragmented.mp4", "-movflags", "frag_keyframe+empty_moov"),
    "no edit list": ("unedited.mp4", "-use_editlist", "0"),
    "ts": ("copy.ts",),
    "flv": ("copy.flv",),
    "mkv": ("copy.mkv",),
}


@pytest.fixture(scope="module")
def spoken(make_media: Media) -> Path:
    return make_media("spoken.mp4", *picture(0.8), *tone(0.8, 44100), "-pix_fmt", "yuv420p", "-c:a", "aac")


@pytest.mark.parametrize("container", COPIES)
def test_the_same_pictures_in_another_container_are_the_same(make_media: Media, spoken: Path, container: str):
    """Their time stamps start elsewhere, which was once met by repeating pictures: PSNR 18 instead of 100."""
    name, *options = COPIES[container]
    clips = pair(make_media(name, "-i", str(spoken), "-c", "copy", *options), spoken)
    assert clips.num_frames == 20
    assert all(np.array_equal(*frames) for frames in clips.frames())
    found = mismatch(clips)
    assert (found.by_index, found.frames) == (True, 0)
    assert found.starts_differ == found.differs == (container != "mkv")


@pytest.fixture(scope="module")
def late(make_media: Media, spoken: Path) -> Path:
    """The pictures 80 ms later, the sound as it was."""
    source, streams = ("-i", str(spoken)), ("-map", "1:v", "-map", "0:a")
    return make_media("late.mp4", *source, "-itsoffset", "0.08", *source, *streams, "-c", "copy")


def test_a_delayed_picture_is_compared_by_index_and_flagged(spoken: Path, late: Path):
    clips = pair(late, spoken)
    assert all(np.array_equal(*frames) for frames in clips.frames())
    assert mismatch(clips).start_s == pytest.approx(0.08, abs=0.001)
    assert mismatch(clips).flagged
    assert not mismatch(pair(spoken, spoken)).differs


def test_sound_is_in_step_with_the_first_picture(spoken: Path, late: Path):
    sound, whole = (Footage(path, DlibBackend).sound for path in (late, spoken))
    np.testing.assert_array_equal(sound[:4000], whole[1280:5280])


@pytest.mark.parametrize("dropped", [0, 1])
def test_a_varying_rate_is_compared_by_index(make_media: Media, dropped: int):
    """As a program leaves it that reads with OpenCV and writes 25 pictures a second."""
    gaps = "select='lt(n,10)+mod(n,3)'"
    source = make_media("varying.mkv", *picture(1.6), "-vf", gaps, "-fps_mode", "vfr", "-c:v", "ffv1")
    made = make_media(
        f"even{dropped}.mkv", "-i", str(source), "-vf", f"trim=end_frame={30 - dropped},setpts=N/25/TB",
        "-fps_mode", "passthrough", "-c:v", "ffv1",
    )  # fmt: skip
    clips = pair(made, source)
    assert clips.by_index
    assert clips.num_frames == 30 - dropped
    assert all(np.array_equal(*frames) for frames in clips.frames())


def test_as_many_frames_at_another_rate_are_compared_by_time(make_media: Media):
    clips = pair(make_media("r50.mp4", *picture(1.0, fps=50)), make_media("r25.mp4", *picture(2.0)))
    assert clips.num_frames == 25
    assert not mismatch(clips).by_index


def test_pixels_are_taken_for_square(make_media: Media):
    """OpenCV knows no other; only the statement differs between these files."""
    oblong = make_media("oblong.mp4", *picture(0.2), "-vf", "setsar=12/11", "-pix_fmt", "yuv420p")
    square = make_media("square.mp4", *picture(0.2), "-pix_fmt", "yuv420p")
    clips = pair(square, oblong)
    assert clips.target.size_px == (224, 224)
    assert all(np.array_equal(*frames) for frames in clips.frames())
    found = mismatch(clips)
    assert (found.resized_from, found.oblong_pixels, found.differs) == (None, True, True)
    assert Footage(oblong, DlibBackend, square_pixels=True).size_px == (244, 224)


def test_the_generated_picture_takes_the_references_size(make_media: Media):
    clips = pair(make_media("small.mp4", *picture(0.2, size="96x96")), make_media("large.mp4", *picture(0.2)))
    assert mismatch(clips).resized_from == (96, 96)
    made, true = next(clips.frames())
    assert made.shape == true.shape == (224, 224, 3)
    assert mismatch(pair(clips.target.path, clips.target.path)).resized_from is None


@given(width=st.integers(4, 60), height=st.integers(4, 60))
def test_resizing_keeps_a_flat_picture(width: int, height: int):
    flat = np.full((30, 40, 3), (10, 120, 240), np.uint8)
    resized = resize(flat, (width, height))
    assert resized.shape == (height, width, 3)
    assert (resized == flat[0, 0]).all()


def test_without_a_reference(make_media: Media):
    alone = pair(make_media("alone.mp4", *picture(0.2)), None)
    with pytest.raises(ClipError) as error:
        next(alone.frames())
    assert error.value.reason == "no-reference"


def test_no_sound(make_media: Media):
    with pytest.raises(ClipError) as error:
        _ = Footage(make_media("mute.mp4", *picture(0.2)), DlibBackend).sound
    assert error.value.reason == "no-sound"


def test_no_face_is_found_out_once(make_media: Media, monkeypatch: pytest.MonkeyPatch):
    backend = DlibBackend()
    calls = []
    detect = backend.detect
    monkeypatch.setattr(backend, "detect", lambda *given: calls.append(1) or detect(*given))
    clip = Footage(make_media("pattern.mp4", *picture(0.6)), lambda: backend)
    for _ in range(2):
        with pytest.raises(ClipError) as error:
            _ = clip.speaker
        assert error.value.reason == "no-face"
    searches = len(calls)
    with pytest.raises(ClipError):
        _ = clip.tracks
    assert len(calls) == searches > 0


def test_unreadable(tmp_path: Path):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(ClipError) as error:
        _ = Footage(text, DlibBackend).num_frames
    assert error.value.stage == "media"


def test_the_first_track_in_the_list_has_the_frame():
    faces = merge_tracks([track(5, 10, x=20), track(0, 8, x=90)], 20)
    assert faces.present.tolist() == [True] * 15 + [False] * 5
    np.testing.assert_array_equal(faces.landmarks_px[4], track(0, 1, x=90).landmarks_px[0])
    np.testing.assert_array_equal(faces.landmarks_px[5], track(0, 1, x=20).landmarks_px[0])
    assert np.isnan(faces.landmarks_px[15:]).all()
    assert np.isnan(faces.boxes_px[15:]).all()
    np.testing.assert_allclose(faces.boxes_px[0], track(0, 1, x=90).boxes_px[0], atol=1e-4)


class TrackedFootage(StandIn, Footage):
    """Footage whose faces are known."""

    size_px = (200, 160)

    def __init__(self, *tracks: Track, num_frames: int = 20) -> None:
        from syncdiff.pipeline.faces.track import TrackResult

        self._tracks = TrackResult(tracks, num_frames, ())


def test_the_face_at_the_references_place_is_compared():
    reference = merge_tracks([track(0, 20, x=90)], 20)
    found = TrackedFootage(track(0, 20, x=10), track(0, 15, x=93)).face_like(reference)
    assert found.present.sum() == 15
    np.testing.assert_allclose(found.landmarks_px[0], track(0, 1, x=93).landmarks_px[0])


def test_a_face_elsewhere_is_not_the_same():
    reference = merge_tracks([track(0, 20, x=130)], 20)
    with pytest.raises(ClipError) as error:
        TrackedFootage(track(0, 20, x=10)).face_like(reference)
    assert error.value.reason == "other-face"


def test_a_face_elsewhere_or_none_is_absent_but_a_missing_model_is_said():
    reference = TrackedFootage(track(0, 20, x=130))
    reference.speaker = merge_tracks([track(0, 20, x=130)], 20)
    made = TrackedFootage(track(0, 20, x=10))
    reference.num_frames = made.num_frames = 20
    pair = ClipPair("clip", made, reference, made)
    assert not pair.generated_faces.present.any()
    made._tracks = ClipError("track", "no-face", "none")
    assert not replace(pair).generated_faces.present.any()
    made._tracks = ClipError("track", "model-missing", "install it")
    with pytest.raises(ClipError, match="install it"):
        _ = replace(pair).generated_faces


def test_landmarks_of_a_smaller_video_come_in_the_references_pixels():
    reference = TrackedFootage(track(0, 20, x=50, side=60))
    reference.speaker = merge_tracks([track(0, 20, x=50, side=60)], 20)
    small = TrackedFootage(track(0, 20, x=25, side=30))
    small.size_px = (100, 80)
    reference.num_frames = small.num_frames = 20
    half = Faces(np.ones(20, bool), track(0, 20, x=50, side=60).landmarks_px / 2)
    small._tracks = small.tracks.__class__((track_of(half),), 20, ())
    made = ClipPair("clip", small, reference, small).generated_faces
    np.testing.assert_allclose(made.landmarks_px, reference.speaker.landmarks_px, atol=1e-3)


def track_of(faces: Faces) -> Track:
    ones = np.ones(len(faces.present), np.float32)
    return Track(0, faces.boxes_px, faces.landmarks_px, ones, ones.astype(bool))


def test_real_faces_follow_the_reference(realdata: Path):
    clip = realdata / "vox2_517600055.mp4"
    clips = pair(clip, clip)
    np.testing.assert_array_equal(clips.generated_faces.landmarks_px, clips.reference_faces.landmarks_px)
    assert clips.reference_faces.present.mean() > 0.9


def test_sound_and_picture_of_a_real_file(make_media: Media):
    clip = Footage(make_media("av.mp4", *picture(1.0), *tone(1.0), "-c:a", "aac"), DlibBackend)
    assert (clip.num_frames, clip.size_px) == (25, (224, 224))
    assert len(clip.sound) == pytest.approx(16000, abs=2048)
    first, again = (list(itertools.islice(clip.frames(), 3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
