"""Masks: the mouth is hidden in every frame, and the mask's shape does not tell how far it is open."""

from __future__ import annotations

import numpy as np
import pytest

from syncdiff.pipeline.faces.align import crop_matrices, to_crop
from syncdiff.pipeline.faces.head_pose import mouth_opening
from syncdiff.pipeline.faces.mask import MaskConfig, mouth_masks
from syncdiff.pipeline.records import ClipError

CLIPS = [
    "carphone",
    "portrait",
    "grid_lbax4n.mpg",
    "grid_s2_swwp2s.mpg",
    "vox2_00015.mp4",
    "vox2_00104.mp4",
    "syncnet_example.avi",
    "vretalk_5.mp4",
    "film_phone.mp4",
]
KINDS = ["lower-half", "mouth-box", "landmarks"]
MOUTH = list(range(48, 68))
CHIN = list(range(5, 12))
JAW = list(range(3, 14))
SIZE = 128


def crop_landmarks(real_face, clip):
    landmarks = real_face(clip).landmarks_px
    return landmarks, to_crop(landmarks, crop_matrices(landmarks, SIZE))


def talking_head(frames=60, seed=0, nod=0.0):
    """Landmarks [T,68,2] in a crop of 128: a fixed head whose jaw opens and closes, or nods on top of it."""
    rng = np.random.default_rng(seed)
    shape = np.empty((68, 2))
    angle = np.linspace(np.pi, 0, 17)
    shape[:17] = np.stack([64 + 40 * np.cos(angle), 56 + 44 * np.sin(angle)], axis=1)
    shape[17:27] = np.stack([np.linspace(36, 92, 10), np.full(10, 30)], axis=1)
    shape[27:36] = np.stack([np.full(9, 64.0), np.linspace(40, 64, 9)], axis=1)
    shape[36:42], shape[42:48] = (48, 40), (80, 40)
    around = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    shape[48:68] = np.stack([64 + 14 * np.cos(around), 80 + 4 * np.sin(around)], axis=1)
    opening = np.clip(rng.normal(6, 4, frames), 0, 14)
    points = np.repeat(shape[None], frames, axis=0)
    lower = [*range(5, 12), *range(48, 58)]
    points[:, lower, 1] += opening[:, None]
    points += nod * np.sin(np.arange(frames) / 9)[:, None, None] * [0.3, 1.0]
    return points.astype(np.float32), opening


def clear_of_edge(mask, point, margin):
    """Whether a disc of this radius around the point is in the mask, as far as it is in the crop."""
    size = len(mask)
    y, x = np.mgrid[:size, :size]
    disc = np.hypot(x - point[0], y - point[1]) <= margin
    return bool(mask[disc].all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", CLIPS)
def test_mouth_and_chin_are_hidden_in_every_frame(real_face, clip, kind):
    _, points = crop_landmarks(real_face, clip)
    masks = mouth_masks(points, SIZE, MaskConfig(kind=kind))
    assert masks.shape == (len(points), SIZE, SIZE)
    assert masks.dtype == np.bool_
    hidden = MOUTH + (CHIN if kind == "lower-half" else JAW)
    margin = 0.05 * SIZE - 1.5  # drawn in whole pixels
    for mask, face in zip(masks[::3], points[::3], strict=True):
        assert all(clear_of_edge(mask, point, margin) for point in face[hidden])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", CLIPS)
def test_eyes_stay_visible(real_face, clip, kind):
    _, points = crop_landmarks(real_face, clip)
    masks = mouth_masks(points, SIZE, MaskConfig(kind=kind))
    for mask, face in zip(masks, np.rint(points).astype(int), strict=True):
        eyes = face[36:48]
        assert not mask[eyes[:, 1], eyes[:, 0]].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_still_head_has_one_mask_however_it_talks(kind):
    points, opening = talking_head()
    assert opening.std() > 3
    masks = mouth_masks(points, SIZE, MaskConfig(kind=kind))
    assert (masks == masks[0]).all()


@pytest.mark.parametrize("kind", ["mouth-box", "landmarks"])
def test_the_mask_follows_the_head_but_not_the_mouth(kind):
    points, _ = talking_head(120, nod=5.0)
    shut, _ = talking_head(120, seed=1, nod=5.0)
    masks = mouth_masks(points, SIZE, MaskConfig(kind=kind))
    height = masks.argmax(axis=1).max(axis=1)  # any measure of place will do
    assert len(np.unique(height)) > 1
    # Another speech under the same head: the masks differ by constants of the clip, not from frame to frame.
    area = masks.sum(axis=(1, 2))
    other = mouth_masks(shut, SIZE, MaskConfig(kind=kind)).sum(axis=(1, 2))
    assert (area - other).std() < 0.02 * area.mean()


def held_out_r2(features, target, folds=5):
    """Share of the target's variance that ridge regression predicts in stretches it has not seen."""
    predicted = np.empty(len(target))
    for held in np.array_split(np.arange(len(target)), folds):
        seen = np.setdiff1d(np.arange(len(target)), held)
        mean, scale = features[seen].mean(axis=0), features[seen].std(axis=0) + 1e-9
        x, y = (features - mean) / scale, target[seen].mean()
        weights = np.linalg.solve(
            x[seen].T @ x[seen] + 5 * np.eye(x.shape[1]), x[seen].T @ (target[seen] - y)
        )
        predicted[held] = x[held] @ weights + y
    return 1 - ((target - predicted) ** 2).sum() / ((target - target.mean()) ** 2).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_the_shape_of_real_masks_hardly_tells_the_opening(real_face, kind):
    """What a mask's outline gives away, next to that of one drawn around the mouth of its own frame."""
    told, naive = [], []
    for clip in CLIPS:
        landmarks, points = crop_landmarks(real_face, clip)
        opening = mouth_opening(landmarks).astype(float)
        masks = mouth_masks(points, SIZE, MaskConfig(kind=kind))
        outline = np.concatenate([masks.sum(axis=1)[:, ::8], masks.sum(axis=2)[:, ::8]], axis=1).astype(float)
        told.append(held_out_r2(outline, opening))
        own = np.concatenate([points[:, JAW].max(axis=1), points[:, JAW].min(axis=1)], axis=1).astype(float)
        naive.append(held_out_r2(own, opening))
    assert np.median(told) < 0.05 < np.median(naive)
    assert np.mean(told) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_faces_beyond_the_crop_stay_in_it(kind):
    points, _ = talking_head(5)
    for shift in ((60, 40), (-90, 0), (0, -70), (500, 500)):
        masks = mouth_masks(points + np.float32(shift), SIZE, MaskConfig(kind=kind))
        assert masks.shape == (5, SIZE, SIZE)


def test_lower_half_starts_in_the_middle_or_above_the_lips():
    points, _ = talking_head(5)
    masks = mouth_masks(points, SIZE, MaskConfig("lower-half"))
    assert masks[:, SIZE // 2 :].all() and not masks[:, : SIZE // 2].any()
    points[2, 51] = (64, 50)
    masks = mouth_masks(points, SIZE, MaskConfig("lower-half", margin=0.1))
    assert (masks.argmax(axis=1) == int(50 - 12.8)).all()


def test_room_for_wider_opening_lowers_the_mask():
    points, _ = talking_head(5)
    depth = [
        mouth_masks(points, SIZE, MaskConfig("landmarks", opening_room=room))
        .any(axis=2)[0]
        .nonzero()[0]
        .max()
        for room in (0.0, 0.1)
    ]
    assert depth[1] - depth[0] == pytest.approx(12.8, abs=1.5)


def test_the_box_holds_the_polygon():
    points, _ = talking_head(30, nod=4.0)
    polygon, box = (mouth_masks(points, SIZE, MaskConfig(kind)) for kind in ("landmarks", "mouth-box"))
    assert (box | ~polygon).all()
    assert polygon.sum() < box.sum()


def test_one_frame_has_a_mask():
    points, _ = talking_head(1)
    assert all(mouth_masks(points, SIZE, MaskConfig(kind)).any() for kind in KINDS)


def test_landmarks_that_are_no_numbers_are_a_declared_failure():
    points, _ = talking_head(4)
    points[2, 50] = np.nan
    with pytest.raises(ClipError) as caught:
        mouth_masks(points, SIZE)
    assert (caught.value.stage, caught.value.reason) == ("mask", "degenerate-landmarks")


@pytest.mark.parametrize("wrong", [{"kind": "oval"}, {"margin": -0.1}, {"opening_room": 0.9}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=r"lower-half|equal to 0|less than 0.5"):
        MaskConfig(**wrong)
