"""TalkLip, LatentSync, MuseTalk and KeySync; tests/originals reads the exports with their own loaders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from syncdiff.pipeline.export.lip_sync import (
    LATENTSYNC_POINTS,
    LATENTSYNC_TEMPLATE,
    LATENTSYNC_UNIT,
    export_keysync,
    export_latentsync,
    export_musetalk,
    export_talklip,
    latentsync_faces,
)
from syncdiff.pipeline.media.read import open_video, read_audio
from syncdiff.pipeline.store.read import Dataset

from .conftest import FEATURES


def frames_of(path: Path) -> np.ndarray:
    return np.concatenate(list(open_video(path).chunks()))


def test_talklip_boxes_lie_in_the_pictures(val: Dataset, sample_raw: Path, tmp_path: Path) -> None:
    assert export_talklip(val, tmp_path, sample_raw).written == len(val)
    names = (tmp_path / "filelist" / "valid.txt").read_text().splitlines()
    for clip, name in zip(val, names, strict=True):
        frames, boxes = frames_of(tmp_path / "video" / f"{name}.mp4"), np.load(tmp_path / f"bbx/{name}.npy")
        assert boxes.shape == (clip.num_frames, 4) and boxes.dtype == np.int64 and len(frames) == len(boxes)
        height, width = frames.shape[1:3]
        assert (boxes >= 0).all() and (boxes[:, 2:] <= (width, height)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        text = (tmp_path / "text" / f"{name}.txt").read_text()
        assert text[7:].strip() == clip.value("transcript").upper()


def test_latentsync_videos_have_their_sound_and_unique_names(val: Dataset, tmp_path: Path) -> None:
    assert export_latentsync(val, tmp_path).written == len(val)
    videos = [Path(line) for line in (tmp_path / "val.txt").read_text().splitlines()]
    assert len({video.name for video in videos}) == len(val)
    for clip, video in zip(val, videos, strict=True):
        assert frames_of(video).shape == (clip.num_frames, 256, 256, 3)
        sound, stored = read_audio(video), clip.audio()
        assert sound is not None and stored is not None
        size = min(len(sound), len(stored))
        assert np.corrcoef(sound[:size], stored[:size])[0, 1] > 0.95  # AAC, and no delay


def test_latentsync_leaves_out_short_clips(val: Dataset, tmp_path: Path, monkeypatch: object) -> None:
    import syncdiff.pipeline.export.lip_sync as module

    monkeypatch.setattr(module, "LATENTSYNC_SHORTEST_FRAMES", 10_000)  # type: ignore[attr-defined]
    assert export_latentsync(val, tmp_path).left_out == {"fewer than 10000 frames": len(val)}


def test_latentsync_puts_brows_and_nose_on_the_template() -> None:
    """Points that already lie on the template, in whole pixels, only have their picture stretched."""
    points = np.zeros((1, 68, 2), np.float32)
    template = np.round(np.array(LATENTSYNC_TEMPLATE) * LATENTSYNC_UNIT * 256)
    for (first, stop), place in zip(LATENTSYNC_POINTS, template, strict=True):
        points[0, first:stop] = place
    picture = np.zeros((280, 210, 3), np.uint8)
    x, y = template[2].astype(int)
    picture[y - 3 : y + 4, x - 3 : x + 4] = 255
    (face,) = latentsync_faces(iter([picture]), points, 256)
    seen = np.argwhere(face[..., 0] > 128).mean(axis=0)
    np.testing.assert_allclose(seen, [y * 256 / 280, x * 256 / 210], atol=1.5)


def test_musetalk_meta_describes_the_video(val: Dataset, tmp_path: Path) -> None:
    assert export_musetalk(val, tmp_path).written == len(val)
    header, *names = (tmp_path / "val.txt").read_text().splitlines()
    assert header == "meta"
    for clip, name in zip(val, names, strict=True):
        meta = json.loads((tmp_path / "meta" / name).read_text())
        assert [meta["frames"], *meta["video_size"], 3] == list(frames_of(Path(meta["mp4_path"])).shape)
        assert np.shape(meta["face_list"]) == (clip.num_frames, 4)
        assert np.shape(meta["landmark_list"]) == (clip.num_frames, 68, 2)
        assert meta["isvalid"] == clip.column("detected").all() and Path(meta["wav_path"]).is_file()


def test_keysync_folders_are_parallel(val: Dataset, tmp_path: Path) -> None:
    assert export_keysync(val, tmp_path, features={"wavlm": FEATURES}).written == len(val)
    for clip, line in zip(val, (tmp_path / "val.txt").read_text().splitlines(), strict=True):
        stem = Path(line).stem
        assert "." not in stem
        landmarks = np.load(tmp_path / "landmarks" / f"{stem}.npy")
        sound = load_file(tmp_path / "audios_emb" / f"{stem}_wavlm_emb.safetensors")["audio"]
        assert len(landmarks) == len(sound) == clip.num_frames == len(frames_of(Path(line)))
