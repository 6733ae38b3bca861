"""The wiring of syncnet-python's pipeline, with stand-in weights and a detector told where the face is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from syncnet_python import SyncNetPipeline
from syncnet_python.detectors.s3fd.nets import S3FDNet

from syncdiff.evaluate.clip_pair import ClipPair, Footage
from syncdiff.evaluate.metrics.lse_tracks import LipSyncTracks, load_pipeline, score_tracks
from syncdiff.evaluate.metrics.registry import METRICS, Tools
from syncdiff.evaluate.protocol import Protocol
from syncdiff.pipeline.faces.dlib import DlibBackend
from syncdiff.pipeline.records import ClipError

from ..conftest import picture, tone


@pytest.fixture(scope="module")
def weights(original_syncnet: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    files = {"syncnet": folder / "syncnet_v2.model", "s3fd-syncnet": folder / "sfd_face.pth"}
    torch.save(original_syncnet.state_dict(), files["syncnet"])
    torch.manual_seed(0)
    torch.save(S3FDNet(device="cpu").state_dict(), files["s3fd-syncnet"])
    return files


@pytest.fixture
def pipeline(weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> SyncNetPipeline:
    """A pipeline whose detector sees one face of 140 px in every frame."""
    pipeline = load_pipeline(weights["syncnet"], weights["s3fd-syncnet"], "cpu", 20)
    face = np.array([[40.0, 40.0, 180.0, 180.0, 0.99]])
    monkeypatch.setattr(pipeline.s3fd, "detect_faces", lambda image, conf_th, scales: face.copy())
    return pipeline


@pytest.fixture(scope="module")
def clip(make_media) -> Path:
    return make_media("talk.mp4", *picture(1.6), *tone(1.6), "-c:a", "pcm_s16le", "-f", "mov")


def pair(clip: Path, sound: Path | None = None) -> ClipPair:
    backend = DlibBackend()
    return ClipPair("talk", Footage(clip, backend), None, Footage(sound or clip, backend))


def test_scores_the_track(pipeline: SyncNetPipeline, clip: Path):
    metric = LipSyncTracks(pipeline)
    statistics = metric.measure(pair(clip))
    assert [len(values) for values in statistics.values()] == [1, 1, 1]
    scores = metric.score(statistics)
    assert scores["lse_d"] > 0
    assert scores["lse_c"] > 0
    assert abs(scores["sync_offset"]) <= 15
    assert metric.settings() == {
        "protocol": "syncnet-tracks",
        "fps": 25,
        "min_track_frames": 20,
        "crop_scale": 0.4,
        "min_face_px": 100,
    }


def test_gives_what_the_pipelines_syncnet_measured(
    pipeline: SyncNetPipeline, clip: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = []
    evaluate = pipeline.syncnet.evaluate
    monkeypatch.setattr(pipeline.syncnet, "evaluate", lambda opt: calls.append(evaluate(opt)) or calls[-1])
    found = score_tracks(pipeline, clip, None)
    assert found == tuple([value] for value in calls[0])
    assert found == score_tracks(pipeline, clip, None)


def test_sound_of_another_file(pipeline: SyncNetPipeline, clip: Path, make_media):
    other = make_media("other.wav", "-f", "lavfi", "-i", "sine=frequency=300:duration=1.6")
    own, foreign = (LipSyncTracks(pipeline).measure(pair(clip, sound)) for sound in (None, other))
    assert own["distances"] != pytest.approx(foreign["distances"])


def test_real_detector_code_runs(weights: dict[str, Path], clip: Path):
    """With random weights S3FD finds no face, and that has its reason."""
    pipeline = load_pipeline(weights["syncnet"], weights["s3fd-syncnet"], "cpu", 20)
    with pytest.raises(ClipError) as error:
        LipSyncTracks(pipeline).measure(pair(clip))
    assert (error.value.stage, error.value.reason) == ("lse", "no-track")


def test_short_tracks_vanish(pipeline: SyncNetPipeline, clip: Path):
    pipeline.cfg.min_track = 100
    with pytest.raises(ClipError, match="more than 100 frames"):
        LipSyncTracks(pipeline).measure(pair(clip))


def test_odd_names(pipeline: SyncNetPipeline, clip: Path, tmp_path: Path):
    odd = tmp_path / "-y concat:'a|b'\n.mp4"
    odd.symlink_to(clip)
    assert score_tracks(pipeline, odd, None) == score_tracks(pipeline, clip, None)


def test_no_sound(pipeline: SyncNetPipeline, make_media):
    with pytest.raises(ClipError) as error:
        LipSyncTracks(pipeline).measure(pair(make_media("mute.mp4", *picture())))
    assert error.value.reason == "no-sound"


def test_no_picture(pipeline: SyncNetPipeline, make_media):
    with pytest.raises(ClipError) as error:
        LipSyncTracks(pipeline).measure(pair(make_media("only.wav", *tone())))
    assert error.value.reason == "no-video"


def test_failure_of_the_pipeline(pipeline: SyncNetPipeline, tmp_path: Path):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    before = os.environ["PATH"]
    with pytest.raises(ClipError) as error:
        score_tracks(pipeline, text, None)
    assert error.value.reason == "pipeline-failed"
    assert os.environ["PATH"] == before


def test_protocol_chooses(weights: dict[str, Path]):
    entry = METRICS["lse"]
    tracks = Protocol(lse="syncnet-tracks", lse_min_track_frames=50)
    assert entry.weights(tracks) == ("syncnet", "s3fd-syncnet")
    assert entry.weights(Protocol()) == ("syncnet",)
    metrics = [entry.make(Tools("cpu", weights), protocol) for protocol in (tracks, Protocol())]
    assert [metric.settings()["protocol"] for metric in metrics] == ["syncnet-tracks", "wav2lip-lrs"]
    assert metrics[0].settings()["min_track_frames"] == 50
