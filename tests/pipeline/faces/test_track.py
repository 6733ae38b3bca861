"""Faces followed where they are known: a portrait moved over a background, scripted backends, real clips."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from syncdiff.pipeline.faces.backend import MEAN_SHAPE, Detections, Seen, Shapes, box_iou, box_of_shape
from syncdiff.pipeline.faces.dlib import DlibBackend
from syncdiff.pipeline.faces.head_pose import interocular_px, mouth_opening
from syncdiff.pipeline.faces.track import TrackResult, split_at_cuts, track_faces
from syncdiff.pipeline.faces.tracker import TrackConfig, TrackState, asymmetry
from syncdiff.pipeline.media.read import open_video
from syncdiff.pipeline.records import F32, U8, ClipError, Track

SIZE = (240, 320)  # height, width


@pytest.fixture(scope="module")
def backend() -> DlibBackend:
    return DlibBackend()


@pytest.fixture(scope="module")
def head() -> U8:
    """A head and shoulders, 200x200, its face about 95 px."""
    return np.ascontiguousarray(np.asarray(data.astronaut(), np.uint8)[10:210, 120:320])


@pytest.fixture(scope="module")
def head_shape(backend: DlibBackend, head: U8) -> F32:
    """Its landmarks [68,2]."""
    shape = backend.landmarks(head, backend.detect(head).boxes_px[:1], np.zeros(1, np.float32))
    return backend.landmarks(head, *box_of_shape(shape))[0]


def scene(heads: Sequence[tuple[U8, float, float]] = (), level: int = 90, size: tuple[int, int] = SIZE) -> U8:
    """A frame with each head's picture centred at (x, y)."""
    frame = np.full((*size, 3), level, np.uint8)
    for head, x, y in heads:
        half = len(head) / 2
        move = np.array([[1, 0, x - half], [0, 1, y - half]])
        shown = cv2.warpAffine(np.full(head.shape[:2], 255, np.uint8), move, size[::-1]) > 127
        frame[shown] = cv2.warpAffine(head, move, size[::-1])[shown]
    return frame


def path(frames: int, reach: float = 40) -> list[tuple[float, float]]:
    """Centres of a head that sways."""
    time = np.arange(frames)
    return list(zip(160 + reach * np.sin(time / 8), 120 + reach / 4 * np.cos(time / 5), strict=True))


def off_by(track: Track, head: U8, head_shape: F32, centres: Sequence[tuple[float, float]]) -> F32:
    """Mean distance of a track's landmarks from the head's own, [T], in distances between the eyes."""
    where = np.array(centres[track.start_frame : track.start_frame + len(track)]) - len(head) / 2
    off = track.landmarks_px - (head_shape + where[:, None])
    return np.asarray(
        np.hypot(off[..., 0], off[..., 1]).mean(axis=1) / interocular_px(head_shape[None]), np.float32
    )


def refusal(
    frames: Sequence[U8], backend: DlibBackend | Script | Batches, config: TrackConfig | None = None
) -> ClipError:
    with pytest.raises(ClipError) as caught:
        track_faces([np.stack(frames)], backend, config)
    assert caught.value.stage == "track"
    return caught.value


# ---- With the real detector -------------------------------------------------------------------------------


def test_a_moving_face_is_followed(backend: DlibBackend, head: U8, head_shape: F32) -> None:
    centres = path(80)
    result = track_faces([np.stack([scene([(head, x, y)]) for x, y in centres])], backend)
    (track,) = result.tracks
    assert (track.start_frame, len(track), result.num_frames, result.cuts) == (0, 80, 80, ())
    assert track.detected.all() and (track.scores > 0.8).all()
    assert off_by(track, head, head_shape, centres).max() < 0.04
    np.testing.assert_allclose(box_of_shape(track.landmarks_px)[0], track.boxes_px, atol=1e-3)


def test_where_chunks_are_divided_makes_no_difference(backend: DlibBackend, head: U8) -> None:
    frames = np.stack([scene([(head, x, y)]) for x, y in path(40)])
    whole = track_faces([frames], backend)
    for size in (1, 7, 39):
        parts = track_faces((frames[k : k + size] for k in range(0, 40, size)), backend)
        assert parts.num_frames == 40
        np.testing.assert_array_equal(parts.tracks[0].landmarks_px, whole.tracks[0].landmarks_px)


def test_no_frame_is_kept(backend: DlibBackend, head: U8) -> None:
    alive: list[weakref.ref[U8]] = []

    def chunks() -> Iterator[U8]:
        for x, y in path(12):
            chunk = scene([(head, x, y)])[None]
            alive.append(weakref.ref(chunk))
            yield chunk
            del chunk
            assert sum(one() is not None for one in alive) <= 1

    track_faces(chunks(), backend)


def test_two_faces_are_two_tracks(backend: DlibBackend, head: U8) -> None:
    mirrored = np.ascontiguousarray(head[:, ::-1])
    wide = (240, 480)
    frames = [scene([(head, 120 + t, 120), (mirrored, 360 - t, 120)], size=wide) for t in range(30)]
    left, right = track_faces([np.stack(frames)], backend).tracks
    assert len(left) == len(right) == 30
    assert left.boxes_px[0, 0] < right.boxes_px[0, 0]
    assert box_iou(left.boxes_px[:1], right.boxes_px[:1])[0, 0] == 0


@pytest.mark.parametrize(("hidden", "tracks"), [(6, 1), (12, 1), (16, 2)])
def test_a_face_that_comes_back_is_bridged_or_begins_anew(
    backend: DlibBackend, head: U8, head_shape: F32, hidden: int, tracks: int
) -> None:
    centres = path(80, reach=10)
    covered = head.copy()
    low, high = head_shape.min(axis=0).astype(int), head_shape.max(axis=0).astype(int)
    covered[low[1] : high[1], low[0] : high[0]] = (150, 110, 90)
    frames = [scene([(covered if 30 <= t < 30 + hidden else head, x, y)]) for t, (x, y) in enumerate(centres)]
    found = track_faces([np.stack(frames)], backend, TrackConfig(max_gap=12)).tracks
    assert len(found) == tracks
    if tracks == 1:
        assert list(np.flatnonzero(~found[0].detected)) == list(range(30, 30 + hidden))
        assert off_by(found[0], head, head_shape, centres).max() < 0.2
    else:
        assert found[0].start_frame + len(found[0]) == 30
        assert 30 + hidden <= found[1].start_frame <= 30 + hidden + 5
        assert all(track.detected.all() for track in found)


def test_a_shot_cut_divides_a_track(backend: DlibBackend, head: U8) -> None:
    mirrored = np.ascontiguousarray(head[:, ::-1])
    frames = [scene([(head, 150, 120)], level=40)] * 20 + [scene([(mirrored, 170, 120)], level=220)] * 20
    result = track_faces([np.stack(frames)], backend)
    assert result.cuts == (20,)
    assert [(track.start_frame, len(track)) for track in result.tracks] == [(0, 20), (20, 20)]


def test_a_flash_does_not(backend: DlibBackend, head: U8) -> None:
    frames = [scene([(head, 150, 120)], level=40)] * 30
    frames[15] = np.clip(frames[15].astype(int) + 120, 0, 255).astype(np.uint8)
    result = track_faces([np.stack(frames)], backend)
    assert result.cuts == () and len(result.tracks) == 1


@pytest.mark.parametrize("degrees", [-60, 60, 90])
def test_a_face_on_its_side_is_found_and_followed(backend: DlibBackend, head: U8, degrees: float) -> None:
    """HOG sees no such face; MMOD does, and then the tilt is carried."""
    turn = cv2.getRotationMatrix2D((100, 100), -degrees, 1.0)
    turned = np.asarray(cv2.warpAffine(head, turn, (200, 200), borderMode=cv2.BORDER_REPLICATE), np.uint8)
    (track,) = track_faces([np.stack([scene([(turned, 160 + t, 120)]) for t in range(20)])], backend).tracks
    assert len(track) == 20
    across = track.landmarks_px[:, 45] - track.landmarks_px[:, 36]
    assert np.rad2deg(np.arctan2(across[:, 1], across[:, 0])) == pytest.approx([degrees] * 20, abs=12)


def test_dark_video_is_followed(backend: DlibBackend, head: U8, head_shape: F32) -> None:
    centres = path(30)
    frames = np.stack([scene([(head, x, y)]) // 8 for x, y in centres])
    (track,) = track_faces([frames], backend).tracks
    assert len(track) == 30 and off_by(track, head, head_shape, centres).max() < 0.06


@pytest.mark.parametrize("frames", [0, 1, 30])
def test_no_face(backend: DlibBackend, frames: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (frames, *SIZE, 3), dtype=np.uint8)
    with pytest.raises(ClipError) as caught:
        track_faces([noise], backend)
    assert caught.value.reason == "no-face" and f"{frames} frames" in caught.value.detail


def test_slides_hold_no_face(backend: DlibBackend) -> None:
    slide = np.full((360, 640, 3), 250, np.uint8)
    for line in range(8):
        cv2.putText(slide, "Results 0.83 (B) 91% @ 8o8", (20, 50 + 38 * line), 0, 1.1, (20, 30, 90), 2)
    cv2.circle(slide, (560, 180), 60, (200, 60, 60), -1)
    assert refusal([slide] * 12, backend).reason == "no-face"


def test_a_face_too_small(backend: DlibBackend, head: U8) -> None:
    tiny = np.asarray(cv2.resize(head, (94, 94), interpolation=cv2.INTER_AREA), np.uint8)
    error = refusal([scene([(tiny, 160, 120)])] * 12, backend)
    assert error.reason == "face-too-small" and "48 px" in error.detail
    relaxed = TrackConfig(min_face_px=24)
    assert len(track_faces([np.stack([scene([(tiny, 160, 120)])] * 12)], backend, relaxed).tracks) == 1


def test_a_track_too_short(backend: DlibBackend, head: U8) -> None:
    frames = [scene([(head, 160, 120)])] * 9 + [scene()] * 20
    error = refusal(frames, backend)
    assert error.reason == "track-too-short" and "10 frames" in error.detail


# ---- With a scripted backend ------------------------------------------------------------------------------


def place(x: float, y: float, side: float, squeeze: float = 0.0) -> F32:
    """MEAN_SHAPE [68,2] in the box of this side at (x, y); `squeeze` moves the nose, 1 onto an eye."""
    shape = MEAN_SHAPE.copy()
    shape[27:36, 0] += squeeze * (MEAN_SHAPE[45, 0] - 0.5)
    return np.asarray((shape - 0.5) * side + (x, y), np.float32)


class Script:
    """A detector that finds the same shapes in each frame, and counts how often it is asked."""

    name = "script"
    detector_levels = 3
    max_uncertainty = 0.04
    min_score = -0.4

    def __init__(
        self, *shapes: F32, score: float = 2.0, uncertainty: float = 0.0, finds: Sequence[int] = (0, 1, 2)
    ) -> None:
        self.shapes = np.array(shapes, np.float32).reshape(-1, 68, 2)
        self.score = score
        self.uncertainty = uncertainty
        self.finds = finds
        self.searches: list[int] = []
        self.thorough = 0
        self.quick = 0
        self.fits = 0

    def detect(self, frame: U8, level: int = 0) -> Detections:
        self.searches.append(level)
        boxes, _ = box_of_shape(self.shapes)
        if level not in self.finds:
            boxes = boxes[:0]
        return Detections(boxes, np.full(len(boxes), self.score, np.float32))

    def fit(self, frame: U8, boxes_px: F32, roll_rad: F32) -> Shapes:
        self.fits += 1
        shapes = self.landmarks(frame, boxes_px, roll_rad)
        return Shapes(shapes, np.full(len(shapes), self.uncertainty, np.float32))

    def landmarks(self, frame: U8, boxes_px: F32, roll_rad: F32) -> F32:
        return self.shapes[box_iou(boxes_px, box_of_shape(self.shapes)[0]).argmax(axis=1)]

    def verify(self, frame: U8, box_px: F32, roll_rad: float, thorough: bool = False) -> float:
        self.thorough += thorough
        self.quick += not thorough
        return 1.0 if thorough else self.score


def blank(frames: int) -> list[U8]:
    return [np.zeros((60, 80, 3), np.uint8)] * frames


def test_asymmetry_of_known_shapes() -> None:
    shapes = np.stack([place(0, 0, 100), place(0, 0, 100, 0.5), place(9, 9, 50, -1.0)])
    assert asymmetry(shapes) == pytest.approx([0, 0.5, 1.0], abs=1e-3)


def test_profiles_only() -> None:
    error = refusal(blank(30), Script(place(50, 50, 80, squeeze=1.2)))
    assert error.reason == "profile-only"


def test_turned_heads_are_allowed_less_uncertainty() -> None:
    frames = [np.stack(blank(30))]
    assert track_faces(frames, Script(place(50, 50, 80), uncertainty=0.035)).tracks
    assert track_faces(frames, Script(place(50, 50, 80, squeeze=0.9), uncertainty=0.01)).tracks
    assert (
        refusal(blank(30), Script(place(50, 50, 80, squeeze=0.9), uncertainty=0.035)).reason == "profile-only"
    )


def test_uncertain_shapes_are_no_faces() -> None:
    assert refusal(blank(30), Script(place(50, 50, 80), uncertainty=0.2)).reason == "no-face"


def test_low_scores_are_no_faces() -> None:
    assert refusal(blank(30), Script(place(50, 50, 80), score=-0.3, finds=(0, 1))).reason == "no-face"


def test_a_followed_face_is_searched_and_verified_seldom() -> None:
    script = Script(place(50, 50, 80))
    track_faces([np.stack(blank(101))], script)
    assert script.searches == [0] * 5  # frames 0, 25, ... 100
    assert 10 <= script.quick <= 13 and script.thorough == 0


def test_uncertainty_is_asked_for_seldom_while_there_is_little() -> None:
    script = Script(place(50, 50, 80), uncertainty=0.01)
    track_faces([np.stack(blank(101))], script)
    assert 20 <= script.fits <= 24
    unsure = Script(place(50, 50, 80), uncertainty=0.03)
    track_faces([np.stack(blank(101))], unsure)
    assert unsure.fits >= 100


def test_uncertainty_is_asked_for_at_once_where_the_shape_changes() -> None:
    """A face that turns into another shape between two questions is uncertain from that frame on."""
    shape = place(50, 50, 80)
    other = shape.copy()
    other[48:] += np.float32(12)

    class Changing(Script):
        def detect(self, frame: U8, level: int = 0) -> Detections:
            if frame[0, 0, 0]:
                self.shapes, self.uncertainty = other[None], 1.0
            return super().detect(frame, level)

        def landmarks(self, frame: U8, boxes_px: F32, roll_rad: F32) -> F32:
            if frame[0, 0, 0]:
                self.shapes, self.uncertainty = other[None], 1.0
            return super().landmarks(frame, boxes_px, roll_rad)

    frames = np.stack(blank(60))
    frames[33:] = 255
    (track,) = track_faces([frames], Changing(shape), TrackConfig(smooth_window=1)).tracks
    assert len(track) == 33


def test_an_unsure_face_is_verified_on_every_frame() -> None:
    script = Script(place(50, 50, 80), score=0.3)
    track_faces([np.stack(blank(50))], script)
    assert script.quick >= 50


def test_a_face_that_only_the_thorough_detector_knows_is_kept_at_a_tenth_of_its_price() -> None:
    script = Script(place(50, 50, 80), score=-1.0, finds=(2,))
    (track,) = track_faces([np.stack(blank(101))], script).tracks
    assert len(track) == 101 and track.detected.all()
    assert 9 <= script.thorough <= 11


def test_fruitless_searches_become_rare() -> None:
    script = Script()
    error = refusal(blank(500), script)
    assert error.reason == "no-face"
    assert script.searches[:3] == [0, 1, 2]  # everything is tried on the first frame
    assert len(script.searches) < 30 and script.searches.count(2) < 10


def test_faces_at_once_are_limited() -> None:
    crowd = [place(100 * k, 50, 80) for k in range(9)]
    assert len(track_faces([np.stack(blank(20))], Script(*crowd)).tracks) == 6


class Batches:
    """A backend that sees all frames by itself: `script` holds the shapes of each frame, in order."""

    name = "batches"
    batch_frames = 8
    max_uncertainty = 0.8
    min_score = 0.5

    def __init__(self, script: Sequence[Sequence[F32]]) -> None:
        self.script = script
        self.sizes: list[int] = []

    def observe(self, frames: Sequence[U8]) -> list[Seen]:
        done = sum(self.sizes)
        self.sizes.append(len(frames))
        seen = []
        for shapes in self.script[done : done + len(frames)]:
            landmarks = np.array(shapes, np.float32).reshape(-1, 68, 2)
            ones = np.ones(len(landmarks), np.float32)
            seen.append(Seen(0.9 * ones, Shapes(landmarks, 0.1 * ones)))
        return seen


def test_batches_are_joined_into_tracks() -> None:
    script = [[place(60 + t, 50, 80), place(300 - t, 50, 80)][:: 1 if t % 2 else -1] for t in range(30)]
    backend = Batches(script)
    result = track_faces([np.stack(blank(13)), np.stack(blank(17))], backend, TrackConfig(smooth_window=1))
    assert backend.sizes == [8, 8, 8, 6]
    assert [len(track) for track in result.tracks] == [30, 30]
    for t in range(30):
        np.testing.assert_array_equal(result.tracks[0].landmarks_px[t], place(60 + t, 50, 80))


@pytest.mark.parametrize(("hidden", "tracks"), [(5, 1), (13, 2)])
def test_gaps_between_batches(hidden: int, tracks: int) -> None:
    script = [[] if 10 <= t < 10 + hidden else [place(60 + t, 50, 80)] for t in range(50)]
    found = track_faces([np.stack(blank(50))], Batches(script)).tracks
    assert len(found) == tracks
    if tracks == 1:
        assert list(np.flatnonzero(~found[0].detected)) == list(range(10, 10 + hidden))
        assert found[0].landmarks_px[12].mean(axis=0) == pytest.approx(
            place(72, 50, 80).mean(axis=0), abs=0.5
        )


def test_batches_know_the_same_reasons() -> None:
    assert refusal(blank(20), Batches([[]] * 20)).reason == "no-face"
    assert refusal(blank(20), Batches([[place(60, 50, 30)]] * 20)).reason == "face-too-small"
    assert refusal(blank(20), Batches([[place(60, 50, 80, 1.2)]] * 20)).reason == "profile-only"
    assert refusal(blank(20), Batches([[place(60, 50, 80)]] * 5 + [[]] * 15)).reason == "track-too-short"


def test_something_else_is_no_backend() -> None:
    class Neither:
        name, max_uncertainty, min_score = "neither", 1.0, 0.0

    with pytest.raises(TypeError, match="neither a BatchBackend nor a FrameBackend"):
        track_faces([], Neither())


def test_parts_between_cuts_begin_and_end_with_a_face() -> None:
    seen = [True, True, False, False, True, True, False, True, False, False]
    face = TrackState(100, [np.full((68, 2), k, np.float32) for k in range(10)], [1.0] * 10, seen)
    parts = split_at_cuts(face, (50, 103, 105, 200))
    assert [(part.start, part.detected) for part in parts] == [
        (100, [True, True]),
        (104, [True]),
        (105, [True, False, True]),
    ]
    assert [int(part.shapes[0][0, 0]) for part in parts] == [0, 4, 5]


# ---- On real clips ----------------------------------------------------------------------------------------


def track_clip(clip: Path, backend: DlibBackend, frames: int | None = None) -> TrackResult:
    chunks = open_video(clip).chunks()
    return track_faces(chunks if frames is None else [next(iter(chunks))[:frames]], backend)


@pytest.mark.parametrize("name", ["dj_cartoon.mp4", "noface_bbb.mp4"])
def test_cartoons_are_no_faces(realdata: Path, backend: DlibBackend, name: str) -> None:
    with pytest.raises(ClipError) as caught:
        track_clip(realdata / name, backend)
    assert caught.value.reason == "no-face"


def test_a_full_profile_is_not_made_up(realdata: Path, backend: DlibBackend) -> None:
    """The head is in profile until frame 58, then turns to the camera."""
    clip = realdata / "vox2_00002.mp4"
    (track,) = track_clip(clip, backend).tracks
    assert 55 <= track.start_frame <= 65 and len(track) > 50
    with pytest.raises(ClipError) as caught:
        track_clip(clip, backend, frames=56)
    assert caught.value.reason == "profile-only"


def test_a_reflection_on_glasses_is_bridged(realdata: Path, backend: DlibBackend) -> None:
    (track,) = track_clip(realdata / "film_phone.mp4", backend).tracks
    assert len(track) > 150 and 0.8 < track.detected.mean() < 1


# Two that a stranger has (see the fixture `real_face`), and files of `realdata`.
SAMPLE = ["carphone", "portrait"]
STEADY = [*SAMPLE, "grid_bbaf2n.mpg", "grid_lbax4n.mpg", "vox2_00104.mp4", "vox2_00015.mp4", "vretalk_5.mp4"]


def clip_frames(request: pytest.FixtureRequest, name: str, count: int) -> U8:
    if name in SAMPLE:
        frames: U8 = request.getfixturevalue("real_face")(name).frames
        return frames
    return next(iter(open_video(request.getfixturevalue("realdata") / name).chunks()))[:count]


@pytest.mark.parametrize("name", STEADY)
def test_followed_landmarks_are_those_of_fresh_detections(
    request: pytest.FixtureRequest, backend: DlibBackend, name: str
) -> None:
    """A second opinion: every eighth frame detected by itself, without knowing the others."""
    frames = clip_frames(request, name, 72)
    (track,) = track_faces([frames], backend, replace(TrackConfig(), smooth_window=1)).tracks
    assert len(track) == len(frames) and track.detected.all()
    distances = []
    for index in range(0, len(frames), 8):
        box = backend.detect(frames[index]).boxes_px[:1]
        fresh = backend.fit(frames[index], box, np.zeros(1, np.float32)).landmarks_px
        off = np.hypot(*np.moveaxis(track.landmarks_px[index] - fresh[0], -1, 0)).mean()
        distances.append(off / interocular_px(fresh)[0])
    assert np.median(distances) < 0.025 and max(distances) < 0.06


@pytest.mark.parametrize("name", ["portrait", "syncnet_example.avi"])
def test_smoothing_neither_delays_nor_damps_a_mouth(
    request: pytest.FixtureRequest, backend: DlibBackend, name: str
) -> None:
    frames = clip_frames(request, name, 150)
    (raw,) = track_faces([frames], backend, TrackConfig(smooth_window=1)).tracks
    (smooth,) = track_faces([frames], backend).tracks
    before, after = mouth_opening(raw.landmarks_px), mouth_opening(smooth.landmarks_px)
    middle = slice(10, -10)
    agreement = {lag: np.corrcoef(before[middle], np.roll(after, -lag)[middle])[0, 1] for lag in range(-5, 6)}
    assert max(agreement, key=lambda lag: agreement[lag]) == 0 and agreement[0] > 0.995
    assert after.std() == pytest.approx(before.std(), rel=0.03)
