"""Head pose, mouth opening, distance of the eyes and sharpness of each frame of a face."""

from __future__ import annotations

import cv2
import numpy as np

from syncdiff.pipeline.faces.align import smooth_over_time
from syncdiff.pipeline.records import F32, U8, ClipError, check_array

# iBUG 300-W numbering, counted from 0: points 36-41 and 42-47 outline the eyes, 60-67 the inner lips.
RIGHT_EYE = slice(36, 42)
LEFT_EYE = slice(42, 48)
UPPER_INNER_LIP = (61, 62, 63)
LOWER_INNER_LIP = (67, 66, 65)

# Points that neither mouth nor eyelids move, and where they are on a mean face in centimetres: x to the
# picture's right, y down, z away from the camera. Vertices of MediaPipe's canonical face model (Apache-2.0,
# mediapipe/modules/face_geometry/data/canonical_face_model.obj; y and z turned), numbers in the comments.
RIGID_POINTS = (27, 28, 29, 30, 31, 33, 35, 36, 39, 42, 45)
RIGID_MODEL_CM = (
    (0.0, -3.271027, -5.236015),  # 168, between the eyes
    (0.0, -1.728369, -6.316750),  # 197
    (0.0, -0.712637, -7.008738),  # middle of 195 and 5
    (0.0, 0.463170, -7.586580),  # 4, tip of the nose
    (-1.405627, 1.714196, -5.241087),  # 98, wings of the nose
    (0.0, 2.089024, -6.058267),  # 2, base of the nose
    (1.405627, 1.714196, -5.241087),  # 327
    (-4.445859, -2.663991, -3.173422),  # 33, eye corners
    (-1.856432, -2.585245, -3.757904),  # 133
    (1.856432, -2.585245, -3.757904),  # 362
    (4.445859, -2.663991, -3.173422),  # 263
)
# Of the virtual camera that looks at the face: a metre, as for a speaker who is filmed.
CAMERA_DISTANCE_CM = 100.0


def interocular_px(landmarks: F32) -> F32:
    """Distance between the eye centres (means of points 36-41 and of 42-47): [T,68,2] to [T]."""
    check_array("landmarks", landmarks, np.float32, (None, 68, 2))
    between = landmarks[:, LEFT_EYE].mean(axis=1) - landmarks[:, RIGHT_EYE].mean(axis=1)
    return np.asarray(np.hypot(between[:, 0], between[:, 1]), np.float32)


def mouth_opening(landmarks: F32) -> F32:
    """Gap between the inner lips over the distance between the eye centres: [T,68,2] to [T], about 0 to 0.7.

    The gap is the mean of the distances 61-67, 62-66 and 63-65. Without unit: the same for a face of any size
    and roll. NaN where both eyes lie in one point.
    """
    eyes = interocular_px(landmarks)
    gaps = landmarks[:, UPPER_INNER_LIP] - landmarks[:, LOWER_INNER_LIP]
    opening = np.hypot(gaps[..., 0], gaps[..., 1]).mean(axis=1)
    return np.asarray(np.divide(opening, eyes, out=np.full_like(eyes, np.nan), where=eyes > 0), np.float32)


def sharpness(faces: U8) -> F32:
    """Variance of the Laplacian of each grey crop: [T,N,N,3] to [T] (Pech-Pacheco et al. 2000)."""
    check_array("faces", faces, np.uint8, (None, None, None, 3))
    values = np.empty(len(faces), np.float32)
    for t, face in enumerate(faces):
        edges = cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_16S)
        values[t] = cv2.meanStdDev(edges)[1].item() ** 2
    return values


def head_pose_deg(landmarks_px: F32, *, smooth_frames: float = 1.0) -> F32:
    """Pitch, yaw and roll in degrees, [T,68,2] to [T,3], in the sign convention of `PoseSelection`.

    Perspective-n-point on eleven points of eyes and nose (SQPnP, Terzakis and Lourakis 2020), seen by a
    virtual camera a metre away that looks straight at the face: the angles are those between face and line
    of sight, and depend neither on the size of the face nor on where in the picture it is, because the true
    camera is unknown and clips are often crops. The rotation is yaw, then pitch, then roll about the face's
    own axes. Points are smoothed over time first. Raises ClipError `degenerate-landmarks`.
    """
    check_array("landmarks_px", landmarks_px, np.float32, (None, 68, 2))
    points = smooth_over_time(landmarks_px[:, RIGID_POINTS], smooth_frames)
    model = np.array(RIGID_MODEL_CM)
    model -= model.mean(axis=0)
    points -= points.mean(axis=1, keepdims=True)
    spread = np.sqrt((points**2).sum(axis=(1, 2)))
    if not (spread > 1e-3).all():
        raise ClipError("pose", "degenerate-landmarks", "no face shape to take a head pose of")
    # Up to foreshortening the picture now shows the model at its own size.
    points *= np.sqrt((model[:, :2] ** 2).sum()) / spread[:, None, None]
    camera = np.diag([CAMERA_DISTANCE_CM, CAMERA_DISTANCE_CM, 1.0])
    angles = np.empty((len(points), 3), np.float32)
    for t, seen in enumerate(points):
        pixels = np.ascontiguousarray(seen)
        solved, turn, _ = cv2.solvePnP(model, pixels, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        if not solved:
            raise ClipError("pose", "degenerate-landmarks", "no head pose fits the landmarks")
        # R = Ry(-yaw) Rx(-pitch) Rz(roll); axes x right, y down, z away from the camera
        rotation = cv2.Rodrigues(turn)[0]
        pitch = np.arcsin(np.clip(rotation[1, 2], -1, 1))
        yaw = np.arctan2(-rotation[0, 2], rotation[2, 2])
        roll = np.arctan2(rotation[1, 0], rotation[1, 1])
        angles[t] = np.degrees([pitch, yaw, roll])
    return angles
