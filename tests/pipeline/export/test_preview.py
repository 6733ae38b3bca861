"""Previews: every frame, with sound, and something drawn over it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from syncdiff.pipeline.export.preview import INTERPOLATED, SEEN, SIDE_PX, export_previews
from syncdiff.pipeline.media.read import open_video, read_audio
from syncdiff.pipeline.store.read import Dataset


def test_previews_show_every_frame_with_its_landmarks(val: Dataset, tmp_path: Path) -> None:
    assert export_previews(val, tmp_path).written == len(val)
    clip = val[0]
    path = tmp_path / f"{clip.clip_id.partition('/')[2]}.mp4"
    frames = np.concatenate(list(open_video(path).chunks()))
    assert frames.shape == (clip.num_frames, SIDE_PX, SIDE_PX, 3)
    assert read_audio(path) is not None
    for t in (0, clip.num_frames - 1):
        colour = SEEN if clip.column("detected")[t] else INTERPOLATED
        assert (np.abs(frames[t].astype(int) - colour).max(axis=-1) < 50).sum() > 68
