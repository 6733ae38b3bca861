"""A clip beside the page plays: reference left, generated right, of the clip's length, with its sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from syncdiff.evaluate.clip_pair import ClipPair, Footage
from syncdiff.evaluate.report.clip_videos import FOLDER, write_clip_video
from syncdiff.pipeline.media.probe import probe
from syncdiff.pipeline.media.read import open_video


def footage(path: Path) -> Footage:
    return Footage(path, lambda: None)  # type: ignore[arg-type, return-value]


def test_both_are_side_by_side_with_sound(make_media: Callable[..., Path], tmp_path: Path):
    sound = ["-f", "lavfi", "-i", "sine=duration=0.4", "-c:a", "aac", "-pix_fmt", "yuv420p"]
    colours = {"black": "made.mp4", "white": "real.mp4"}
    made, real = (
        footage(make_media(name, "-f", "lavfi", "-i", f"color={colour}:s=100x80:r=25:d=0.4", *sound))
        for colour, name in colours.items()
    )
    address = write_clip_video(ClipPair("a/b", made, real, made), "ours", 6, tmp_path)
    assert address.startswith(f"./{FOLDER}/")
    path = tmp_path / address
    info = probe(path)
    assert (info.video_codec, info.pixel_format, info.audio_codec) == ("h264", "yuv420p", "aac")
    frames = np.concatenate(list(open_video(path).chunks()))
    assert frames.shape == (6, 240, 600, 3)
    assert frames[:, :, :290].mean() > 250 and frames[:, :, 310:].mean() < 5
