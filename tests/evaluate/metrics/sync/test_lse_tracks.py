"""The steps of SyncNet's pipeline against syncnet-python's, with stand-in weights and detections made up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from syncnet_python import SyncNetPipeline
from syncnet_python.detectors.s3fd.nets import S3FDNet
from syncnet_python.syncnet_pipeline import PipelineConfig

from syncdiff.evaluate.clip_pair import ClipPair, Footage
from syncdiff.evaluate.metrics.registry import METRICS, Tools
from syncdiff.evaluate.metrics.sync.lse_tracks import (
    LipSyncTracks,
    build_detector,
    follow_faces,
    score_tracks,
)
from syncdiff.evaluate.metrics.sync.syncnet import SyncNet
from syncdiff.evaluate.protocol import Protocol
from syncdiff.pipeline.faces.dlib import DlibBackend
from syncdiff.pipeline.media.ffmpeg import ffmpeg_binary
from syncdiff.pipeline.records import ClipError
from syncdiff.pipeline.weights.published import WeightFile, entry_named

from ...conftest import picture, tone

ONE_FACE = np.array([[40.0, 40.0, 180.0, 180.0, 0.99]])


class Detector:
    """Stands for S3FD: finds these faces [n,5] (box, certainty), the last ones in all frames after them."""

    def __init__(self, *faces: np.ndarray) -> None:
        self._faces = list(faces)

    def detect_faces(self, image: np.ndarray, conf_th: float, scales: Sequence[float]) -> np.ndarray:
        return (self._faces.pop(0) if len(self._faces) > 1 else self._faces[0]).copy()


def metric(syncnet: SyncNet, detector: object | None = None, min_track_frames: int = 20) -> LipSyncTracks:
    return LipSyncTracks(syncnet, detector or Detector(ONE_FACE), min_track_frames)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def weights(original_syncnet: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    files = {"syncnet": folder / "syncnet_v2.model", "s3fd-syncnet": folder / "sfd_face.pth"}
    torch.save(original_syncnet.state_dict(), files["syncnet"])
    torch.manual_seed(0)
    torch.save(S3FDNet(device="cpu").state_dict(), files["s3fd-syncnet"])
    return files


@pytest.fixture(scope="module")
def clip(make_media) -> Path:
    return make_media("talk.mp4", *picture(1.6), *tone(1.6), "-c:a", "pcm_s16le", "-f", "mov")


def pair(clip: Path, sound: Path | None = None) -> ClipPair:
    backend = DlibBackend()
    return ClipPair("talk", Footage(clip, lambda: backend), None, Footage(sound or clip, lambda: backend))


def detections(frames: int) -> list[np.ndarray]:
    """A drifting face that is missed now and then, one too small, and one that comes and goes."""
    found = []
    for frame in range(frames):
        faces = [[20 + frame, 30.5 + 3 * np.sin(frame), 150 + frame, 165.25, 0.99]] * (frame % 7 != 3)
        faces += [[250, 10, 310, 80, 0.98]]
        faces += [[190, 100, 310.5, 230, 0.95]] * (frame < 32 or frame > 52)
        found.append(np.array(faces))
    return found


def test_equals_syncnet_pythons_pipeline(
    syncnet: SyncNet, weights: dict[str, Path], make_media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cut = "negate=enable='gte(t,1.4)'"
    clip = make_media(
        "cut.mp4", *picture(2.8, size="320x240", fps=30), *tone(2.8, 22050), "-vf", cut, "-shortest"
    )
    (tmp_path / "ffmpeg").symlink_to(ffmpeg_binary())
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    config = PipelineConfig(
        s3fd_weights=str(weights["s3fd-syncnet"]), syncnet_weights=str(weights["syncnet"]), min_track=25
    )
    original = SyncNetPipeline(config, device="cpu")
    faces = detections(80)
    monkeypatch.setattr(original.s3fd, "detect_faces", Detector(*faces).detect_faces)
    with torch.no_grad():
        offsets, confidences, distances, *_ = original.inference(str(clip), None)
    tracks = score_tracks(syncnet, Detector(*faces), clip, clip, 25)  # type: ignore[arg-type]
    assert len(offsets) >= 3
    assert [track.offset_frames for track in tracks] == offsets
    assert [track.lse_c for track in tracks] == pytest.approx(confidences, rel=1e-3, abs=1e-4)
    assert [track.lse_d for track in tracks] == pytest.approx(distances, rel=1e-4)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 9999), frames=st.integers(1, 60), min_track=st.integers(1, 30), gaps=st.floats(0, 0.9)
)
def test_tracks_equal_syncnet_pythons(seed: int, frames: int, min_track: int, gaps: float):
    """Up to three faces a frame, in columns of their own, since S3FD keeps none that overlap."""
    rng = np.random.default_rng(seed)
    boxes = []
    for _ in range(frames):
        columns = np.flatnonzero(rng.random(3) > gaps)[:, None] * 400.0
        corner = np.hstack([columns, np.zeros_like(columns)]) + rng.uniform(0, 90, (len(columns), 2))
        boxes.append(np.hstack([corner, corner + rng.uniform(60, 260, (len(columns), 1))]))
    dictionaries = [
        [{"frame": 7 + frame, "bbox": box.tolist()} for box in faces] for frame, faces in enumerate(boxes)
    ]
    pipeline = SimpleNamespace(cfg=PipelineConfig(min_track=min_track), _iou=SyncNetPipeline._iou)
    expected = SyncNetPipeline._track(pipeline, dictionaries)
    tracks = follow_faces(boxes, 7, min_track)
    assert [list(track.frames) for track in tracks] == [list(one["frame"]) for one in expected]
    for track, one in zip(tracks, expected, strict=True):
        np.testing.assert_allclose(track.boxes_px, one["bbox"], rtol=1e-12)


def test_scores_the_track(syncnet: SyncNet, clip: Path):
    lse = metric(syncnet)
    statistics = lse.measure(pair(clip))
    assert [len(values) for values in statistics.values()] == [1, 1, 1]
    scores = lse.score(statistics)
    assert scores["lse_d"] > 0
    assert scores["lse_c"] > 0
    assert abs(scores["sync_offset"]) <= 15
    assert lse.settings() == {
        "protocol": "syncnet-tracks",
        "fps": 25,
        "min_track_frames": 20,
        "crop_scale": 0.4,
        "min_face_px": 100,
    }


def test_sound_of_another_file(syncnet: SyncNet, clip: Path, make_media):
    other = make_media("other.wav", "-f", "lavfi", "-i", "sine=frequency=300:duration=1.6")
    own, foreign = (metric(syncnet).measure(pair(clip, sound)) for sound in (None, other))
    assert own["distances"] != pytest.approx(foreign["distances"])


def test_real_detector_code_runs(syncnet: SyncNet, weights: dict[str, Path], clip: Path):
    """With random weights S3FD finds no face, and that has its reason."""
    detector = build_detector(torch.load(weights["s3fd-syncnet"], weights_only=True), "cpu")
    with pytest.raises(ClipError) as error:
        metric(syncnet, detector).measure(pair(clip))
    assert (error.value.stage, error.value.reason) == ("lse", "no-track")


def test_short_tracks_vanish(syncnet: SyncNet, clip: Path):
    with pytest.raises(ClipError, match="more than 100 frames"):
        metric(syncnet, min_track_frames=100).measure(pair(clip))


def test_odd_names(syncnet: SyncNet, clip: Path, tmp_path: Path):
    odd = tmp_path / "-y concat:'a|b'\n.mp4"
    odd.symlink_to(clip)
    statistics = metric(syncnet).measure(pair(clip))
    for name, values in metric(syncnet).measure(pair(odd)).items():
        np.testing.assert_array_equal(values, statistics[name])


def test_no_sound(syncnet: SyncNet, make_media):
    with pytest.raises(ClipError) as error:
        metric(syncnet).measure(pair(make_media("mute.mp4", *picture())))
    assert error.value.reason == "no-sound"


def test_sound_ends_before_the_track(syncnet: SyncNet, clip: Path, make_media):
    with pytest.raises(ClipError) as error:
        metric(syncnet).measure(pair(clip, make_media("brief.wav", *tone(0.1))))
    assert (error.value.stage, error.value.reason) == ("lse", "too-short")


def test_no_picture(syncnet: SyncNet, make_media):
    with pytest.raises(ClipError) as error:
        metric(syncnet).measure(pair(make_media("only.wav", *tone())))
    assert error.value.reason == "no-video"


def test_unreadable(syncnet: SyncNet, tmp_path: Path):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(ClipError) as error:
        score_tracks(syncnet, Detector(ONE_FACE), text, text, 20)  # type: ignore[arg-type]
    assert error.value.reason == "pipeline-failed"


def test_protocol_chooses(weights: dict[str, Path]):
    entry = METRICS["lse"]
    tracks = Protocol(lse="syncnet-tracks", lse_min_track_frames=50)
    assert entry.weights(tracks) == ("syncnet", "s3fd-syncnet")
    assert entry.weights(Protocol()) == ("syncnet",)
    files = {name: WeightFile(entry_named(name), path, "", False) for name, path in weights.items()}
    metrics = [entry.make(Tools("cpu", files), protocol) for protocol in (tracks, Protocol())]
    assert [metric.settings()["protocol"] for metric in metrics] == ["syncnet-tracks", "wav2lip-lrs"]
    assert metrics[0].settings()["min_track_frames"] == 50
