"""Crops: exact geometry, no aliasing, untouched surroundings; AV-HuBERT's convention done a second time."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import transform as skt

from syncdiff.pipeline.faces import align
from syncdiff.pipeline.faces.align import AlignConfig
from syncdiff.pipeline.records import ClipError

SAMPLE = ["carphone", "portrait"]
CLIPS = [
    *SAMPLE,
    "grid_lbax4n.mpg",
    "vox2_00015.mp4",
    "vox2_00104.mp4",
    "syncnet_example.avi",
    "vretalk_5.mp4",
]


def fitted_similarity(source: np.ndarray, target: np.ndarray) -> skt.SimilarityTransform:
    """scikit-image's fit, by either of its names: `from_estimate` is of 0.26 and later."""
    if hasattr(skt.SimilarityTransform, "from_estimate"):
        return skt.SimilarityTransform.from_estimate(source, target)
    transform = skt.SimilarityTransform()
    assert transform.estimate(source, target)
    return transform


def similarity(scale, degrees, x, y):
    turn = scale * np.exp(1j * np.radians(degrees))
    return np.array([[turn.real, -turn.imag, x], [turn.imag, turn.real, y]])


def landmarks_like(frames, seed=0, motion=0.0):
    """Landmarks [T,68,2] whose stable points lie as in the mean face, with the rest anywhere around them."""
    rng = np.random.default_rng(seed)
    points = np.repeat(rng.uniform(60, 200, (1, 68, 2)), frames, axis=0)
    points[:, align.STABLE_POINTS] = align.MEAN_FACE_PX
    return (points + motion * rng.standard_normal(points.shape)).astype(np.float32)


def smooth_picture(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


# Smoothing over time


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 40])
def test_smoothing_keeps_steady_motion_to_the_ends(frames):
    line = np.arange(frames)[:, None] * [[2.0, -0.5]] + [[3.0, 7.0]]
    np.testing.assert_allclose(align.smooth_over_time(line, 2.0), line, atol=1e-9)


def test_smoothing_has_zero_phase_and_takes_noise_away():
    impulse = np.zeros(41)
    impulse[20] = 1
    answer = align.smooth_over_time(impulse, 2.0)
    np.testing.assert_allclose(answer, answer[::-1], atol=1e-12)
    noise = np.random.default_rng(0).standard_normal(2000)
    # A Gaussian filter keeps 1 / (2 sqrt(pi) sigma) of the variance of white noise.
    assert align.smooth_over_time(noise, 2.0).var() == pytest.approx(1 / (4 * np.sqrt(np.pi)), rel=0.1)


# Matrices and points


@given(st.floats(0.05, 8), st.floats(-180, 180), st.floats(-4000, 4000), st.floats(-4000, 4000))
def test_fit_recovers_a_similarity(scale, degrees, x, y):
    source = np.array(align.MEAN_FACE_PX)
    matrix = similarity(scale, degrees, x, y)
    target = source @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(align.fit_similarities(source[None], target)[0], matrix, rtol=1e-6, atol=1e-6)


def test_fit_equals_umeyama():
    rng = np.random.default_rng(3)
    source, target = rng.normal(100, 30, (20, 5, 2)), rng.normal(100, 30, (5, 2))
    target += source.mean(axis=0)  # near enough to a similarity that no reflection is optimal
    for got, points in zip(align.fit_similarities(source, target), source, strict=True):
        want = fitted_similarity(points, target).params[:2]
        np.testing.assert_allclose(got, want, atol=1e-8)


def to_source(points, matrix):
    """Points [...,P,2] in crop pixels back to source pixels."""
    exact = matrix.astype(np.float64)
    return (points - exact[..., None, :, 2]) @ np.swapaxes(np.linalg.inv(exact[..., :2]), -1, -2)


@given(
    st.floats(0.05, 8),
    st.floats(-180, 180),
    st.floats(-2000, 2000),
    st.lists(st.tuples(st.floats(0, 1920), st.floats(0, 1080)), min_size=1, max_size=9),
)
def test_points_come_back_from_the_crop(scale, degrees, shift, points):
    matrix = similarity(scale, degrees, shift, -shift).astype(np.float32)
    points = np.array(points)
    there = align.to_crop(points, matrix).astype(np.float64)
    # The crop's coordinates are float32: far outside of it their steps grow.
    grain = 4 * np.spacing(np.float32(np.abs(there).max() + 1)) / scale
    np.testing.assert_allclose(to_source(there, matrix), points, atol=1e-3 + grain)


def test_points_of_each_frame_use_its_own_matrix():
    landmarks = landmarks_like(6, motion=3.0)
    matrices = align.crop_matrices(landmarks, 128)
    there = align.to_crop(landmarks, matrices)
    np.testing.assert_allclose(there[4], align.to_crop(landmarks[4], matrices[4]), atol=1e-4)
    np.testing.assert_allclose(to_source(there, matrices), landmarks, atol=1e-3)


def test_mean_face_lands_on_the_template():
    matrices = align.crop_matrices(landmarks_like(3), 256)
    there = align.to_crop(np.array(align.MEAN_FACE_PX), matrices[1])
    np.testing.assert_allclose(there, align.template_px(256), atol=1e-3)
    assert there[0, 1] == pytest.approx(256 * (0.5 + 1.303 / 208) - 0.5, abs=1e-2)


def test_the_mouth_does_not_move_the_crop():
    landmarks = landmarks_like(20, motion=1.0)
    other = landmarks.copy()
    other[:, 48:] += np.random.default_rng(1).normal(0, 20, (20, 20, 2)).astype(np.float32)
    other[:, :17] += 9
    np.testing.assert_array_equal(align.crop_matrices(landmarks, 128), align.crop_matrices(other, 128))


@pytest.mark.parametrize("spoil", ["one point", "not a number"])
def test_degenerate_landmarks_are_a_declared_failure(spoil):
    landmarks = landmarks_like(5)
    landmarks[3] = 50.0 if spoil == "one point" else np.nan
    for failing in (
        lambda: align.crop_matrices(landmarks, 64, AlignConfig(0)),
        lambda: align.mouth_matrices(landmarks[3:4]),
    ):
        with pytest.raises(ClipError) as caught:
            failing()
        assert (caught.value.stage, caught.value.reason) == ("align", "degenerate-landmarks")


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), 1e9])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="smooth_frames"):
        AlignConfig(smooth_frames=wrong)


@pytest.mark.parametrize("clip", CLIPS)
def test_real_faces_lie_inside_their_crops(real_face, clip):
    face = real_face(clip)
    there = align.to_crop(face.landmarks_px, align.crop_matrices(face.landmarks_px, 256)) / 256
    mouth_and_chin = there[:, [*range(6, 11), *range(17, 68)]]
    assert mouth_and_chin.min() > 0.02 and mouth_and_chin.max() < 0.98
    eyes = there[:, 36:48].mean(axis=(0, 1))
    np.testing.assert_allclose(eyes, [0.5, 0.30], atol=0.04)


# Pictures


@pytest.mark.parametrize("scale", [2.5, 1.3, 0.9, 0.6, 0.45, 0.3, 0.1])
def test_a_crop_shows_each_point_where_to_crop_says(scale):
    """Discs with known centres keep their centres, at every reduction."""
    size, centre = 96, np.array([611.3, 402.7])
    matrix = similarity(scale, 12, 0, 0)
    matrix[:, 2] = (40.2, 55.9) - matrix[:, :2] @ centre
    y, x = np.mgrid[:800, :1200]
    radius = 12 / scale
    disc = np.clip(radius + 0.5 - np.hypot(x - centre[0], y - centre[1]), 0, 1)
    frame = np.repeat((disc * 250).astype(np.uint8)[..., None], 3, axis=2)
    crop = align.crop_faces(frame[None], matrix.astype(np.float32)[None], size)[0, :, :, 0].astype(float)
    y, x = np.mgrid[:size, :size]
    seen = np.array([(x * crop).sum(), (y * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(seen, (40.2, 55.9), atol=0.05)


@pytest.mark.parametrize("scale", [0.5, 0.45, 0.32, 0.25, 0.12])
def test_strong_reduction_does_not_alias(scale):
    """Stripes finer than the crop can show come out grey."""
    x = np.arange(1200)
    for period in (2.0, 1.05 / scale if scale < 0.5 else 2.0):
        stripes = (127.5 + 127.5 * np.cos(2 * np.pi * x / period)).astype(np.uint8)
        frame = np.broadcast_to(stripes[None, :, None], (900, 1200, 3)).copy()
        matrix = similarity(scale, 0, -300 * scale, -200 * scale).astype(np.float32)
        naive = cv2.warpAffine(frame, matrix, (96, 96))[20:70, 20:70]
        crop = align.crop_faces(frame[None], matrix[None], 96)[0, 20:70, 20:70]
        assert crop.std() < 20
        assert crop.std() < naive.std() / 2 or naive.std() < 20


def test_sharpness_does_not_jump_with_the_size_of_the_face():
    frame = np.random.default_rng(0).integers(0, 255, (700, 700, 3), dtype=np.uint8)
    frame = cv2.GaussianBlur(frame, (0, 0), 1.0)
    scales = np.linspace(0.2, 1.2, 101)
    spread = []
    for scale in scales:
        matrix = similarity(scale, 5, 48 - 350 * scale, 48 - 350 * scale).astype(np.float32)
        spread.append(float(align.crop_faces(frame[None], matrix[None], 96).std()))
    steps = np.abs(np.diff(np.log(spread)))
    assert steps.max() < 0.2


def test_outside_the_picture_the_border_is_repeated():
    frame = np.full((1, 40, 40, 3), 200, np.uint8)
    for scale in (1.0, 0.3):
        matrix = similarity(scale, 30, -30, 50).astype(np.float32)
        assert (align.crop_faces(frame, matrix[None], 64) == 200).all()


# Pasting back


@pytest.mark.parametrize("scale", [0.4, 0.9, 1.7])
def test_pasting_leaves_everything_outside_the_mask_untouched(scale):
    frame = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    matrix = similarity(scale, 17, 64 - 200 * scale, 30 - 100 * scale).astype(np.float32)
    mask = np.zeros((128, 128), np.bool_)
    mask[60:, 20:] = True  # reaches two edges of the crop
    face = np.full((128, 128, 3), 255, np.uint8)
    pasted = align.paste_back(frame, face, matrix, mask)
    y, x = np.mgrid[:300, :400]
    there = np.rint(align.to_crop(np.stack([x, y], axis=-1).reshape(-1, 2), matrix)).astype(int)
    within = ((there >= 0) & (there < 128)).all(axis=1)
    marked = np.zeros(len(there), np.bool_)
    marked[within] = mask[there[within, 1], there[within, 0]]
    changed = (pasted != frame).any(axis=2)
    assert not (changed & ~marked.reshape(300, 400)).any()
    assert changed.sum() > 0.6 * marked.sum()


def test_pasting_no_mask_or_off_the_picture_changes_nothing():
    frame = smooth_picture(64, 64)
    face = np.zeros((32, 32, 3), np.uint8)
    for shift, marked in ((0.0, False), (500.0, True)):
        mask = np.full((32, 32), marked)
        pasted = align.paste_back(frame, face, similarity(1, 0, shift, 0).astype(np.float32), mask)
        np.testing.assert_array_equal(pasted, frame)


@pytest.mark.parametrize("scale", [0.4, 0.7, 1.0, 1.8])
def test_a_crop_pasted_back_stays_in_place(scale):
    """A disc cut out and pasted into an empty picture lies where it was, far better than within a pixel."""
    centre = np.array([211.3, 142.6])
    y, x = np.mgrid[:300, :400]
    disc = np.clip(15.5 - np.hypot(x - centre[0], y - centre[1]), 0, 1) * 250
    frame = np.repeat(disc.astype(np.uint8)[..., None], 3, axis=2)
    matrix = similarity(scale, -8, 0, 0)
    matrix[:, 2] = (60.2, 70.9) - matrix[:, :2] @ centre
    matrix = matrix.astype(np.float32)
    face = align.crop_faces(frame[None], matrix[None], 128)[0]
    pasted = align.paste_back(np.zeros_like(frame), face, matrix, np.ones((128, 128), np.bool_))
    light = pasted[..., 0].astype(float)
    np.testing.assert_allclose(
        np.array([(x * light).sum(), (y * light).sum()]) / light.sum(), centre, atol=0.1
    )
    assert light.sum() == pytest.approx(frame[..., 0].sum(), rel=0.02)


@pytest.mark.parametrize("clip", [*SAMPLE, "vox2_00015.mp4", "vretalk_5.mp4"])
def test_a_real_crop_pasted_back_is_nearly_the_frame(real_face, clip):
    face = real_face(clip)
    matrix = align.crop_matrices(face.landmarks_px, 256)[0]
    crop = align.crop_faces(face.frames[:1], matrix[None], 256)[0]
    pasted = align.paste_back(face.frames[0], crop, matrix, np.ones((256, 256), np.bool_))
    touched = (pasted != face.frames[0]).any(axis=2)
    error = pasted[touched].astype(float) - face.frames[0][touched]
    assert 10 * np.log10(255**2 / (error**2).mean()) > 32  # dB; what two resamplings cost


# AV-HuBERT's mouth regions


def original_rois(frames_bgr, landmarks, window=12):
    """A second, literal implementation: queue of frames and points, scikit-image warps, cut by slices."""
    target = np.array(align.MEAN_FACE_PX)
    stable = list(align.STABLE_POINTS)
    window = min(len(frames_bgr), window)
    points_queue, frames_queue, rois = deque(), deque(), []

    def cut(transform, frame, points):
        warped = (skt.warp(frame, transform.inverse, output_shape=(256, 256)) * 255).astype(np.uint8)
        centre = np.clip(transform(points)[48:68].mean(axis=0), 48, 256 - 48)
        x, y = (round(value) for value in centre)
        patch = warped[y - 48 : y + 48, x - 48 : x + 48]
        rois.append(cv2.cvtColor(patch, cv2.COLOR_BGR2GRAY))

    for frame, points in zip(frames_bgr, landmarks, strict=True):
        points_queue.append(points)
        frames_queue.append(frame)
        if len(frames_queue) == window:
            mean = np.mean(points_queue, axis=0)
            transform = fitted_similarity(mean[stable], target)
            cut(transform, frames_queue.popleft(), points_queue.popleft())
    while frames_queue:
        cut(transform, frames_queue.popleft(), points_queue.popleft())
    return np.stack(rois)


@pytest.mark.parametrize(
    ("clip", "frames"),
    [
        ("carphone", 20),
        ("portrait", 13),
        ("grid_lbax4n.mpg", 20),
        ("vox2_00015.mp4", 5),
        ("vretalk_5.mp4", 13),
    ],
)
def test_mouth_regions_equal_a_literal_implementation(real_face, clip, frames):
    face = real_face(clip)
    pictures, points = face.frames[:frames], face.landmarks_px[:frames]
    want = original_rois(pictures[..., ::-1], points.astype(np.float64)).astype(int)
    got = align.mouth_rois(pictures, points).astype(int)
    assert got.shape == (frames, 96, 96)
    coarse = int(cv2.__version__.split(".")[0]) < 5  # OpenCV 4 rounds positions to 1/32 of a pixel
    assert np.abs(got - want).max() <= (4 if coarse else 1)
    assert np.abs(got - want).mean() < (0.3 if coarse else 0.1)


def test_mouth_region_stays_inside_the_canvas_and_is_black_outside_the_picture():
    landmarks = landmarks_like(1)
    landmarks[:, 48:68] = (128.0, 400.0)  # far below: the window stops at the canvas's edge
    matrix = align.mouth_matrices(landmarks)[0]
    np.testing.assert_allclose(align.to_crop(np.array([[128.0, 208.0]]), matrix), [[48.0, 48.0]], atol=1e-2)
    frame = np.full((1, 200, 256, 3), 255, np.uint8)
    region = align.crop_mouths(frame, matrix[None])[0]
    assert (region[45:] == 0).all() and (region[:38] == 255).all()
