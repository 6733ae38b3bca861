"""Head pose against known angles, mouth opening, distance of the eyes, sharpness."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncdiff.pipeline.faces import head_pose as pose
from syncdiff.pipeline.records import ClipError

EYES_CM = 6.3  # distance of the eye centres in the model


def turned_heads(angles_deg, interocular_px=50.0, at=(100.0, 80.0), distance_cm=100.0):
    """Landmarks of the model's head under pitch, yaw, roll, written as rotations of the facing direction."""
    model = np.array(pose.RIGID_MODEL_CM)
    model -= model.mean(axis=0)
    landmarks = np.zeros((len(angles_deg), 68, 2))
    for t, (pitch, yaw, roll) in enumerate(np.radians(angles_deg)):
        points = (
            model @ cv2.Rodrigues(np.array([0, 0, roll]))[0].T
        )  # about z, away from the camera: clockwise
        points = points @ cv2.Rodrigues(np.array([-pitch, 0, 0]))[0].T
        points = points @ cv2.Rodrigues(np.array([0, -yaw, 0]))[0].T
        depth = points[:, 2] + distance_cm
        shown = points[:, :2] * (distance_cm / depth)[:, None] * (interocular_px / EYES_CM) + at
        landmarks[t, list(pose.RIGID_POINTS)] = shown
    return landmarks.astype(np.float32)


# Head pose


@settings(max_examples=60, deadline=None)
@given(st.floats(-40, 40), st.floats(-65, 65), st.floats(-60, 60))
def test_known_angles_come_back(pitch, yaw, roll):
    got = pose.head_pose_deg(turned_heads([(pitch, yaw, roll)]))[0]
    np.testing.assert_allclose(got, (pitch, yaw, roll), atol=1.5)


def test_signs_are_those_of_the_record():
    """Up: the nose's tip nears the eyes; to the right: it moves right; clockwise: the right eye sinks."""
    up, right, clockwise = turned_heads([(20, 0, 0), (0, 20, 0), (0, 0, 20)]).astype(float)
    middle = turned_heads([(0, 0, 0)])[0].astype(float)
    assert up[30, 1] - up[[36, 45], 1].mean() < middle[30, 1] - middle[[36, 45], 1].mean()
    assert right[30, 0] - right[[36, 45], 0].mean() > 5
    assert clockwise[45, 1] > clockwise[36, 1]
    got = pose.head_pose_deg(np.stack([up, right, clockwise]).astype(np.float32), smooth_frames=0)
    np.testing.assert_allclose(got, 20 * np.eye(3), atol=1.0)


def test_pose_depends_neither_on_size_nor_on_place():
    angles = [(10, -30, 5), (-15, 20, -10)]
    near = pose.head_pose_deg(turned_heads(angles, 40.0), smooth_frames=0)
    far = pose.head_pose_deg(turned_heads(angles, 160.0, (900.0, 300.0)), smooth_frames=0)
    np.testing.assert_allclose(near, far, atol=0.05)


@pytest.mark.parametrize("distance_cm", [60.0, 300.0, 10_000.0])
def test_another_camera_changes_little(distance_cm):
    angles = np.array([(15, 40, 10), (-20, -30, -5), (0, 0, 0)], np.float32)
    got = pose.head_pose_deg(turned_heads(angles, distance_cm=distance_cm), smooth_frames=0)
    np.testing.assert_allclose(got, angles, atol=3.0)


def test_noise_of_a_pixel_moves_the_pose_by_few_degrees():
    angles = np.random.default_rng(0).uniform((-25, -40, -25), (25, 40, 25), (200, 3))
    landmarks = turned_heads(angles) + np.random.default_rng(1).normal(0, 1, (200, 68, 2)).astype(np.float32)
    error = pose.head_pose_deg(landmarks.astype(np.float32), smooth_frames=0) - angles
    assert np.sqrt((error**2).mean(axis=0)).max() < 3


def test_the_mouth_does_not_move_the_pose():
    landmarks = turned_heads([(5, 10, 0)] * 8)
    other = landmarks.copy()
    other[:, 48:] = np.random.default_rng(0).normal(100, 30, (8, 20, 2))
    np.testing.assert_array_equal(pose.head_pose_deg(landmarks), pose.head_pose_deg(other))


@pytest.mark.parametrize("spoiled", [5.0, np.nan])
def test_no_face_shape_is_a_declared_failure(spoiled):
    with pytest.raises(ClipError) as caught:
        pose.head_pose_deg(np.full((3, 68, 2), spoiled, np.float32))
    assert (caught.value.stage, caught.value.reason) == ("pose", "degenerate-landmarks")


@pytest.mark.parametrize(
    ("clip", "low", "high"),
    [
        ("carphone", (0, -12, -25), (22, 8, -5)),  # his head tilted to his right
        ("portrait", (-18, -8, -7), (3, 12, 13)),
        ("vox2_00015.mp4", (-15, -45, -5), (20, -15, 20)),  # turned to the picture's left
        ("vox2_00086.mp4", (-20, -40, -30), (25, -8, 10)),
        ("grid_brbk7n.mpg", (-15, -12, -8), (15, 12, 8)),  # frontal
        ("syncnet_example.avi", (-15, -15, -10), (20, 15, 10)),
    ],
)
def test_real_heads_look_where_they_look(real_face, clip, low, high):
    angles = np.median(pose.head_pose_deg(real_face(clip).landmarks_px), axis=0)
    assert (angles > low).all() and (angles < high).all()


@pytest.mark.parametrize("clip", ["portrait", "grid_lbax4n.mpg"])
def test_talking_does_not_nod_the_head(real_face, clip):
    """Between closed and open mouth the pitch of a still speaker moves by little."""
    landmarks = real_face(clip).landmarks_px
    opening, pitch = pose.mouth_opening(landmarks), pose.head_pose_deg(landmarks)[:, 0]
    wide = opening > np.percentile(opening, 80)
    assert opening[wide].mean() - opening[~wide].mean() > 0.1
    assert abs(pitch[wide].mean() - pitch[~wide].mean()) < 3


# Mouth opening, interocular distance, sharpness


def test_opening_is_the_gap_of_the_inner_lips_in_interocular_distances():
    landmarks = np.zeros((2, 68, 2), np.float32)
    landmarks[:, 36:42], landmarks[:, 42:48] = (10, 10), (60, 10)
    landmarks[0, 61:64], landmarks[0, 65:68] = (35, 50), (35, 60)
    np.testing.assert_allclose(pose.interocular_px(landmarks), [50, 50])
    np.testing.assert_allclose(pose.mouth_opening(landmarks), [0.2, 0])


@given(st.floats(0.1, 20), st.floats(-180, 180), st.floats(-500, 500))
def test_opening_is_the_same_at_every_size_and_roll(scale, degrees, shift):
    landmarks = np.random.default_rng(0).uniform(0, 100, (1, 68, 2)).astype(np.float32)
    turn = scale * np.exp(1j * np.radians(degrees))
    moved = (landmarks[..., 0] + 1j * landmarks[..., 1]) * turn + shift
    moved = np.stack([moved.real, moved.imag], axis=-1).astype(np.float32)
    np.testing.assert_allclose(pose.mouth_opening(moved), pose.mouth_opening(landmarks), rtol=2e-2)


def test_opening_without_eyes_is_no_number():
    assert np.isnan(pose.mouth_opening(np.zeros((1, 68, 2), np.float32))).all()


@pytest.mark.parametrize("clip", ["portrait", "syncnet_example.avi"])
def test_opening_rises_and_falls(real_face, clip):
    opening = pose.mouth_opening(real_face(clip).landmarks_px)
    assert opening.min() < 0.05 and 0.15 < opening.max() < 0.7


def test_sharpness_is_the_variance_of_the_laplacian():
    faces = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    grey = cv2.cvtColor(faces[1], cv2.COLOR_RGB2GRAY).astype(float)
    padded = np.pad(grey, 1, mode="reflect")
    edges = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * grey
    got = pose.sharpness(faces)
    assert got.dtype == np.float32
    assert got[1] == pytest.approx(edges.var(), rel=1e-5)
    assert pose.sharpness(cv2.GaussianBlur(faces[1], (5, 5), 1)[None])[0] < got[1] / 4
