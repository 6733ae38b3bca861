"""Head pose, mouth opening and sharpness of each frame, and which frames may condition it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from syncdiff.pipeline.align import smooth_over_time
from syncdiff.pipeline.records import F32, I32, U8, Bool, ClipError, PoseSelection, check_array

PosePolicy = Literal["previous", "offset", "nearest-pose"]

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


@dataclass(frozen=True)
class PoseConfig:
    """How conditioning frames are chosen. Times are in frames at 25 per second.

    policy: the pose frame of t is t-1 (`previous`), t-offset_frames (`offset`) or the frame of the most
    similar head pose at least pose_distance_frames away (`nearest-pose`).
    identities: how many reference frames to name for each frame (K).
    identity_distance_frames: how far in time a reference must be at least.
    identity_spacing_frames: of each stretch of this many frames only the best competes as a reference.
    """

    policy: PosePolicy = "previous"
    offset_frames: int = 1
    pose_distance_frames: int = 5
    identities: int = 5
    identity_distance_frames: int = 10
    identity_spacing_frames: int = 5

    def __post_init__(self) -> None:
        if self.policy not in ("previous", "offset", "nearest-pose"):
            raise ValueError(f"unknown pose policy {self.policy!r}: use previous, offset or nearest-pose")
        counts = (self.offset_frames, self.pose_distance_frames, self.identities)
        if min(*counts, self.identity_distance_frames, self.identity_spacing_frames) < 1:
            raise ValueError("distances, offset, spacing and number of identities start at 1")


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
        angles[t] = _angles_deg(_rotation(model, seen, camera))
    return angles


def _rotation(
    model: NDArray[np.float64], seen: NDArray[np.float64], camera: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Rotation matrix of the head from its points in the picture."""
    found, turn, _ = cv2.solvePnP(model, np.ascontiguousarray(seen), camera, None, flags=cv2.SOLVEPNP_SQPNP)
    if not found:
        raise ClipError("pose", "degenerate-landmarks", "no head pose fits the landmarks")
    return np.asarray(cv2.Rodrigues(turn)[0])


def _angles_deg(rotation: NDArray[np.float64]) -> tuple[float, float, float]:
    """Pitch, yaw, roll of R = Ry(-yaw) Rx(-pitch) Rz(roll); axes x right, y down, z away from the camera."""
    pitch = np.arcsin(np.clip(rotation[1, 2], -1, 1))
    yaw = np.arctan2(-rotation[0, 2], rotation[2, 2])
    roll = np.arctan2(rotation[1, 0], rotation[1, 1])
    return float(np.degrees(pitch)), float(np.degrees(yaw)), float(np.degrees(roll))


def select_pose(head_pose_deg: F32, config: PoseConfig | None = None) -> I32:
    """The pose frame of each frame under `config.policy`, head poses [T,3] to [T]; -1 where there is none.

    `previous` and `offset` look back only, as a generator that makes one frame after the other must;
    `nearest-pose` may name later frames. Frame 0 (`offset`: the first k frames) has none to look back at.
    """
    check_array("head_pose_deg", head_pose_deg, np.float32, (None, 3))
    config = config or PoseConfig()
    here = np.arange(len(head_pose_deg), dtype=np.int32)
    if config.policy == "nearest-pose":
        return _nearest_pose(head_pose_deg, config.pose_distance_frames)
    offset = 1 if config.policy == "previous" else config.offset_frames
    return np.asarray(np.where(here >= offset, here - offset, -1), np.int32)


def _nearest_pose(head_pose_deg: F32, distance: int) -> I32:
    """Nearest head pose by Euclidean distance of the angles, a block of frames at a time to bound memory."""
    here = np.arange(len(head_pose_deg))
    chosen = np.full(len(here), -1, np.int32)
    for block in np.array_split(here, len(here) // 512 + 1):
        gap = np.sum((head_pose_deg[block, None] - head_pose_deg[None]) ** 2, axis=2)
        gap[np.abs(block[:, None] - here) < distance] = np.inf
        best = gap.argmin(axis=1)
        chosen[block] = np.where(np.isfinite(gap.min(axis=1)), best, -1)
    return chosen


def select_identity(
    head_pose_deg: F32,
    opening: F32,
    sharp: F32,
    config: PoseConfig | None = None,
    pose_index: I32 | None = None,
    usable: Bool | None = None,
) -> I32:
    """Reference frames of each frame, best first: [T,3], [T] and [T] to [T,K], -1 where there are fewer.

    A reference is at least `identity_distance_frames` away, not the pose frame (a second look at it would
    add nothing), and where `usable` is given, one of those frames. They are ranked by the sum of three terms
    from 0 to 1: sharpness (relative to the clip's 95th percentile), frontal view (0 from 45 degrees off) and
    distance in time (1 from a second on).

    Mouths differ among the references of a frame: candidates fall into K classes of mouth opening, and the
    best of each class comes before the rest. They are not chosen to differ from the frame's own mouth: an
    open mouth in the reference would then tell the network that the one to make is shut.
    """
    check_array("head_pose_deg", head_pose_deg, np.float32, (None, 3))
    config = config or PoseConfig()
    frames = len(head_pose_deg)
    check_array("opening", opening, np.float32, (frames,))
    check_array("sharp", sharp, np.float32, (frames,))
    crisp = np.clip(sharp / max(float(np.percentile(sharp, 95)), 1e-6), 0, 1)
    frontal = 1 - np.clip(np.hypot(head_pose_deg[:, 0], head_pose_deg[:, 1]) / 45, 0, 1)
    quality = np.where(usable if usable is not None else True, crisp + frontal, -np.inf)
    candidates = _best_of_each_stretch(quality, config.identity_spacing_frames)

    away = np.abs(np.arange(frames)[:, None] - candidates)
    score = quality[candidates] + np.minimum(away / 25, 1)
    barred = away < config.identity_distance_frames
    if pose_index is not None:
        barred |= pose_index[:, None] == candidates
    score[barred] = -np.inf
    for members in np.array_split(np.argsort(opening[candidates], kind="stable"), config.identities):
        if len(members):
            best = members[score[:, members].argmax(axis=1)]
            score[np.arange(frames), best] += 4  # more than the three terms can make up
    chosen = np.full((frames, config.identities), -1, np.int32)
    order = np.argsort(-score, axis=1, kind="stable")[:, : config.identities]
    ranked = np.where(np.isfinite(np.take_along_axis(score, order, axis=1)), candidates[order], -1)
    chosen[:, : ranked.shape[1]] = ranked
    return chosen


def _best_of_each_stretch(quality: NDArray[np.floating], spacing: int) -> NDArray[np.int64]:
    """The best frame of each stretch of `spacing` frames (more in long clips: there are at most 128
    stretches).
    """
    spacing = max(spacing, -(-len(quality) // 128))
    starts = np.arange(0, len(quality), spacing)
    padded = np.full(len(starts) * spacing, -np.inf)
    padded[: len(quality)] = quality
    return np.asarray(starts + padded.reshape(-1, spacing).argmax(axis=1), np.int64)


def select(
    head_pose_deg: F32,
    opening: F32,
    sharp: F32,
    config: PoseConfig | None = None,
    usable: Bool | None = None,
) -> PoseSelection:
    """Pose and reference frames of a clip from its head pose [T,3], mouth opening [T] and sharpness [T].

    See `select_pose` and `select_identity`.
    """
    config = config or PoseConfig()
    pose_index = select_pose(head_pose_deg, config)
    identity_index = select_identity(head_pose_deg, opening, sharp, config, pose_index, usable)
    return PoseSelection(head_pose_deg, pose_index, identity_index)
