"""A short look at each row: an mp4 with sound, landmarks, the mask's edge and the frame's numbers over it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from syncdiff.pipeline.export.base import Content, ExportCounts, OnClip, export_clips, folder_name
from syncdiff.pipeline.faces.align import to_crop
from syncdiff.pipeline.media.write import PLAYABLE, write_video
from syncdiff.pipeline.records import U8
from syncdiff.pipeline.store.read import ClipView, Dataset

SIDE_PX = 384  # large enough for the text on small crops
SEEN, INTERPOLATED, MASK = (90, 230, 120), (255, 90, 90), (255, 210, 60)  # RGB


def export_previews(dataset: Dataset, out: Path, on_clip: OnClip = lambda clip: None) -> ExportCounts:
    """`<split>/<clip>.mp4`: the stored crops at 384 pixels, with what the preparation found drawn over them.

    Landmarks are green where the face was detected and red where it was interpolated; the mask's edge is
    yellow; below stand the frame's number, its mouth opening and yaw.
    """

    def files_of(clip: ClipView) -> Mapping[Path, Content]:
        return {out / f"{folder_name(clip.clip_id)}.mp4": partial(_write, clip)}

    return export_clips(dataset, files_of, on_clip)[0]


def _write(clip: ClipView, path: Path) -> None:
    write_video(path, _drawn(clip), clip.audio(), PLAYABLE)


def _drawn(clip: ClipView) -> Iterator[U8]:
    side, place, font = (SIDE_PX, SIDE_PX), (8, SIDE_PX - 10), cv2.FONT_HERSHEY_SIMPLEX
    scale = SIDE_PX / int(clip.value("face_size_px"))
    points = (to_crop(clip.column("landmarks_px"), clip.column("crop_matrix")) + 0.5) * scale - 0.5
    detected, opening = clip.column("detected"), clip.column("mouth_opening")
    yaw = clip.column("head_pose_deg")[:, 1]
    for t in range(clip.num_frames):
        picture = cv2.resize(clip.frames([t])[0], side, interpolation=cv2.INTER_CUBIC)
        mask = cv2.resize(clip.masks([t])[0].view(np.uint8), side, interpolation=cv2.INTER_NEAREST)
        edges = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
        cv2.drawContours(picture, edges, -1, MASK, 1, cv2.LINE_AA)
        for x, y in np.rint(points[t]).astype(int).tolist():
            cv2.circle(picture, (x, y), 2, SEEN if detected[t] else INTERPOLATED, -1, cv2.LINE_AA)
        text = f"{t}  opening {opening[t]:.2f}  yaw {yaw[t]:+.0f}"
        for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(picture, text, place, font, 0.5, colour, width, cv2.LINE_AA)
        yield np.asarray(picture)
