"""Which frames of a clip may condition each of its frames: the pose frame and the identity references."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass

from syncdiff.pipeline.config import STRICT
from syncdiff.pipeline.records import F32, I32, Bool, PoseSelection, check_array

PosePolicy = Literal["previous", "offset", "nearest-pose"]


@dataclass(frozen=True, config=STRICT)
class PoseConfig:
    """How conditioning frames are chosen. Times are in frames at 25 per second.

    policy: the pose frame of t is t-1 (`previous`), t-offset_frames (`offset`) or the frame of the most
    similar head pose at least pose_distance_frames away (`nearest-pose`).
    identities: how many reference frames to name for each frame (K).
    identity_distance_frames: how far in time a reference must be at least.
    identity_spacing_frames: of each stretch of this many frames only the best competes as a reference.
    """

    policy: PosePolicy = "previous"
    offset_frames: PositiveInt = 1
    pose_distance_frames: PositiveInt = 5
    identities: PositiveInt = 5
    identity_distance_frames: PositiveInt = 10
    identity_spacing_frames: PositiveInt = 5


def select_pose(head_pose_deg: F32, config: PoseConfig | None = None) -> I32:
    """The pose frame of each frame under `config.policy`, head poses [T,3] to [T]; -1 where there is none.

    `previous` and `offset` look back only, as a generator that makes one frame after the other must;
    `nearest-pose` may name later frames. Frame 0 (`offset`: the first k frames) has none to look back at.
    """
    check_array("head_pose_deg", head_pose_deg, np.float32, (None, 3))
    config = config or PoseConfig()
    here = np.arange(len(head_pose_deg), dtype=np.int32)
    if config.policy == "nearest-pose":
        chosen = np.full(len(here), -1, np.int32)
        for block in np.array_split(here, len(here) // 512 + 1):  # all pairs at once would fill memory
            gap = np.sum((head_pose_deg[block, None] - head_pose_deg[None]) ** 2, axis=2)
            gap[np.abs(block[:, None] - here) < config.pose_distance_frames] = np.inf
            chosen[block] = np.where(np.isfinite(gap.min(axis=1)), gap.argmin(axis=1), -1)
        return chosen
    offset = 1 if config.policy == "previous" else config.offset_frames
    return np.asarray(np.where(here >= offset, here - offset, -1), np.int32)


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
    # The best frame of each stretch; of long clips, 128 stretches.
    spacing = max(config.identity_spacing_frames, -(-frames // 128))
    starts = np.arange(0, frames, spacing)
    padded = np.pad(quality, (0, len(starts) * spacing - frames), constant_values=-np.inf)
    candidates = starts + padded.reshape(-1, spacing).argmax(axis=1)

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
