"""Our exports read by the loaders of the projects that they are for, unchanged, from checkouts of theirs.

SYNCDIFF_ORIGINALS is a folder with checkouts of the projects in CHECKOUTS, whose commits are those tried;
SYNCDIFF_ORIGINALS_PYTHON is a Python that has what they import. `make test-originals` makes both. Nothing of
theirs is in this project.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from syncdiff.pipeline.avhubert.extractor import load_avhubert
from syncdiff.pipeline.avhubert.untrained import make_tiny_checkpoint
from syncdiff.pipeline.export.auto_avsr import (
    export_auto_avsr,
    export_landmarks,
    load_tokens,
    mouth_patches,
)
from syncdiff.pipeline.export.avh_align import export_avh_align
from syncdiff.pipeline.export.avhubert import export_avhubert, export_fairseq_features
from syncdiff.pipeline.export.base import pictures_of
from syncdiff.pipeline.export.lip_sync import (
    export_keysync,
    export_latentsync,
    export_musetalk,
    export_talklip,
    latentsync_faces,
)
from syncdiff.pipeline.features.add_to_store import extract_shard, unfinished_shards
from syncdiff.pipeline.features.filterbanks import wav2lip_mel
from syncdiff.pipeline.features.kmeans import fit
from syncdiff.pipeline.media.ffmpeg import ffmpeg_binary
from syncdiff.pipeline.media.write import LOSSLESS, write_video
from syncdiff.pipeline.store.manifest import write_manifest
from syncdiff.pipeline.store.paths import StorePaths
from syncdiff.pipeline.store.read import Dataset, open_dataset

pytestmark = pytest.mark.originals

CHECKOUTS = {
    "av_hubert": "258fb50e155134eec2c4b49c2ae8de267075fd18",
    "VSP-LLM": "91c4f3d4418ac9cd0f6328f043de5e48e1d091b2",
    "auto_avsr": "182b62837773ab01052d4ac21ef1d2203ea7d267",
    "AVH-Align": "55401ded7d94a6ad59106c401696d89ce8d16faf",
    "TalkLip": "7ed53ee2f0ffb3636de49e0f24719eef1c757252",
    "LatentSync": "a229c3948406bc2cf6eaf4873e662e70c6a04746",
    "MuseTalk": "0a89dec45a0192b824e3cf4daf96c239440c5ed8",
    "keysync": "cfff7cf1fe2bc44212cf0f90f26ad143afc3e56c",
}

Read = Callable[[str, str, Path], dict[str, Any]]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    folder, python = os.environ.get("SYNCDIFF_ORIGINALS"), os.environ.get("SYNCDIFF_ORIGINALS_PYTHON")
    if not folder or not python:
        pytest.skip("set SYNCDIFF_ORIGINALS and SYNCDIFF_ORIGINALS_PYTHON; `make test-originals` says how")
    programs = tmp_path_factory.mktemp("bin")  # MuseTalk calls ffmpeg by name
    (programs / "ffmpeg").symlink_to(ffmpeg_binary())
    path = f"{programs}:{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PATH": path}

    def read_with(loader: str, project: str, export: Path) -> dict[str, Any]:
        checkout = Path(folder) / project
        if not checkout.is_dir():
            pytest.skip(f"no checkout of {project} in {folder}")
        script = Path(__file__).with_name("read_export.py")
        command = [python, str(script), loader, str(checkout), str(export)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        result: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT "))
        return result

    return read_with


@pytest.fixture(scope="module")
def dataset(prepared_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The sample with features of an untrained AV-HuBERT for sound, pictures and both."""
    import shutil

    folder = tmp_path_factory.mktemp("store")
    root = Path(shutil.copytree(prepared_sample, folder / "sample"))
    checkpoint = make_tiny_checkpoint(folder / "untrained.safetensors")
    for modality in ("audio", "video", "both"):
        extractor = load_avhubert(checkpoint, modality)  # type: ignore[arg-type]
        for shard in unfinished_shards(root, extractor):
            extract_shard(root, shard, extractor)
    write_manifest(StorePaths(root))
    return open_dataset(root)


def train_rows(dataset: Dataset) -> int:
    return dataset.table(["split"])["split"].to_pylist().count("train")


def first_train_clip(dataset: Dataset) -> Any:
    return next(clip for clip in dataset if clip.value("split") == "train")


def test_avhubert(read: Read, dataset: Dataset, tmp_path: Path) -> None:
    clusters, _ = fit(dataset, "avhubert-both-final", 8)
    export_avhubert(dataset, tmp_path, clusters=clusters)
    clip = first_train_clip(dataset)
    seen = read("avhubert", "av_hubert", tmp_path)
    frames = clip.num_frames
    assert seen["rows"] == train_rows(dataset) and seen["id"] == clip.clip_id.partition("/")[2]
    assert seen["video"] == [frames, 88, 88, 1] and seen["audio"] == [frames, 104]
    assert seen["label"] == [len(clip.value("transcript").split())] and seen["unknown"] == 0
    stored = clip.mouth_rois()[:, 4:92, 4:92] / 255.0
    assert abs(seen["mean"] - (stored.mean() - 0.421) / 0.165) < 0.05  # grey values, after H.264
    units = read("km", "av_hubert", tmp_path)
    assert units == {"rows": train_rows(dataset), "label": [frames]}


def test_vsp_llm(read: Read, dataset: Dataset, tmp_path: Path) -> None:
    clusters, _ = fit(dataset, "avhubert-both-final", 8)
    export_avhubert(dataset, tmp_path, "vsp-llm", clusters)
    seen = read("vsp_llm", "VSP-LLM", tmp_path)
    assert seen["rows"] == train_rows(dataset)
    assert seen["frames"] == first_train_clip(dataset).num_frames >= seen["runs"]


def test_fairseq_features(read: Read, dataset: Dataset, tmp_path: Path) -> None:
    export_fairseq_features(dataset, tmp_path, "avhubert-both-final", shards=2)
    seen = read("fairseq_features", "av_hubert", tmp_path)
    clips = [clip for clip in dataset if clip.value("split") == "train"]
    assert seen["rows"] == -(-len(clips) // 2)
    assert seen["first"][0] == clips[0].num_frames
    assert seen["all"][0] == sum(clip.num_frames for clip in clips)


def test_avh_align(read: Read, dataset: Dataset, tmp_path: Path) -> None:
    export_avh_align(dataset, tmp_path)
    seen = read("avh_align", "AVH-Align", tmp_path)
    frames = first_train_clip(dataset).num_frames
    assert seen["rows"] == train_rows(dataset) and seen["label"] == 0
    assert seen["video"][0] == seen["audio"][0] == frames


def test_auto_avsr(read: Read, dataset: Dataset, sample_raw: Path, tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    words = tmp_path / "words.txt"
    words.write_text("\n".join(t for t in dataset.table(["transcript"])["transcript"].to_pylist() if t))
    sentencepiece.SentencePieceTrainer.Train(
        input=str(words), model_prefix=str(tmp_path / "unigram"), vocab_size=40, minloglevel=2
    )
    model = tmp_path / "unigram.model"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    units = tmp_path / "units.txt"
    units.write_text("".join(f"{pieces.IdToPiece(i)} {i + 1}\n" for i in range(pieces.GetPieceSize())))
    tokens = load_tokens(model, units)
    export_auto_avsr(dataset, tmp_path, sample_raw, tokens)
    seen = read("auto_avsr", "auto_avsr", tmp_path)
    clip = first_train_clip(dataset)
    assert seen["rows"] == train_rows(dataset) and seen["frames"] == clip.num_frames
    assert seen["video"] == [clip.num_frames, 1, 88, 88]
    assert seen["audio"] == [clip.num_frames * 640, 1]
    assert " ".join(map(str, seen["target"])) == tokens.encode(clip.value("transcript"))


def test_auto_avsr_cuts_the_same_mouths_from_our_landmarks(
    read: Read, dataset: Dataset, sample_raw: Path, tmp_path: Path
) -> None:
    export_landmarks(dataset, tmp_path / "all", sample_raw)
    clip = first_train_clip(dataset)
    frames = np.stack(list(pictures_of(clip, sample_raw).frames))
    write_video(tmp_path / "video.mp4", frames, None, LOSSLESS)
    theirs_list = (tmp_path / "all" / clip.value("source")).with_suffix(".pkl")
    (tmp_path / "landmarks.pkl").write_bytes(theirs_list.read_bytes())
    seen = read("auto_avsr_patches", "auto_avsr", tmp_path)
    assert seen == {"patches": [len(frames), 96, 96, 3], "frames": len(frames), "landmarks": len(frames)}
    ours = np.stack(list(mouth_patches(iter(frames), clip.column("landmarks_px"))))
    apart = np.abs(ours.astype(int) - np.load(tmp_path / "theirs.npy").astype(int))
    # OpenCV 4, which theirs runs with, rounds positions to 1/32 of a pixel
    assert apart.mean() < 0.2 and np.quantile(apart, 0.99) <= 1


def test_talklip(read: Read, dataset: Dataset, sample_raw: Path, tmp_path: Path) -> None:
    export_talklip(dataset, tmp_path, sample_raw)
    seen = read("talklip", "TalkLip", tmp_path)
    clip = first_train_clip(dataset)
    assert seen["rows"] == train_rows(dataset) and seen["frames"] == clip.num_frames
    assert seen["text"] == clip.value("transcript").upper()
    assert seen["boxes"] == [clip.num_frames, 4] and seen["spectrogram"] == [clip.num_frames, 104]
    assert seen["images"][1:] == [clip.value("source_height_px"), clip.value("source_width_px"), 3]


def test_latentsync(read: Read, dataset: Dataset, tmp_path: Path) -> None:
    export_latentsync(dataset, tmp_path)
    seen = read("latentsync", "LatentSync", tmp_path)
    assert seen["rows"] == train_rows(dataset)
    assert seen["pictures"] == seen["expert"] == [16, 3, 256, 256]
    assert seen["mel"] == seen["expert_mel"] == [1, 80, 52]
    # Their spectrum of the sound in the mp4 against that of the stored sound: no delay crept in
    name = Path(seen["path"]).stem
    clip = next(c for c in dataset if c.clip_id.partition("/")[2].replace("/", "+") == name)
    ours, theirs = wav2lip_mel(clip.audio()), np.array(seen["first_mel"])
    steps = min(ours.shape[1], theirs.shape[1])
    assert abs(ours.shape[1] - theirs.shape[1]) <= 6  # AAC ends on a whole frame of 1024 samples
    apart = {lag: _distance(ours[:, :steps], theirs[:, :steps], lag) for lag in range(-6, 7)}
    assert min(apart, key=apart.__getitem__) == 0


def _distance(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], lag: int) -> float:
    a, b = (
        (ours[:, lag:], theirs[:, : theirs.shape[1] - lag]) if lag >= 0 else (ours[:, :lag], theirs[:, -lag:])
    )
    return float(np.abs(a - b).mean())


def test_latentsync_aligns_faces_the_same_way(read: Read, dataset: Dataset, tmp_path: Path) -> None:
    pictures = pictures_of(first_train_clip(dataset), None)
    frames = np.stack(list(pictures.frames))[:20]
    np.save(tmp_path / "frames.npy", frames)
    np.save(tmp_path / "landmarks.npy", pictures.landmarks_px[:20])
    assert read("latentsync_faces", "LatentSync", tmp_path) == {"faces": 20}
    ours = np.stack(list(latentsync_faces(iter(frames), pictures.landmarks_px[:20], 256)))
    apart = np.abs(ours.astype(int) - np.load(tmp_path / "theirs.npy").astype(int))
    assert apart.mean() < 1 and np.quantile(apart, 0.99) <= 4  # kornia's warp in place of OpenCV's


def test_musetalk(read: Read, dataset: Dataset, sample_raw: Path, tmp_path: Path) -> None:
    export_musetalk(dataset, tmp_path, sample_raw)
    seen = read("musetalk", "MuseTalk", tmp_path)
    assert seen["rows"] == train_rows(dataset)
    assert seen["pictures"] == [1, 3, 256, 256] and seen["mel"] == [1, 80, 52]
    assert seen["whisper"] == [80, 3000] and 0 < seen["mask"] < 0.5


def test_keysync(read: Read, dataset: Dataset, sample_raw: Path, tmp_path: Path) -> None:
    export_keysync(dataset, tmp_path, sample_raw, {"wavlm": "avhubert-audio-final"})
    seen = read("keysync", "keysync", tmp_path)
    assert seen["rows"] == train_rows(dataset)
    assert seen["target"] == [3, 5, 128, 128] and seen["audio"][0] == 5
    assert 0 < seen["mask"] < 0.7
