"""How fast samples come from the shards, on one core, and from a folder of JPEGs and .npy files.

    python tests/benchmarks/bench_loader.py [--resolution 128]

The folder holds the same crops, masks and features, a file a frame, as Wav2Lip's training reads them; it is
read for the very same samples, which is checked. Both are read in turn, a few times, and the medians are
compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from sample_store import prepared_sample

from syncdiff.model.audio import AudioSpec, audio_spec
from syncdiff.model.config import TrainConfig, from_mapping
from syncdiff.model.data import (
    Batch,
    SampleStream,
    collate,
    draw,
    loader,
    read_samples,
    row_groups,
    trainable_rows,
)
from syncdiff.pipeline.store.read import Dataset, open_dataset


@dataclass
class FolderClip:
    """A clip as a folder: 00000.jpg, mask_00000.png, <features>.npy, and its small columns in memory."""

    folder: Path
    clip_id: str
    num_frames: int
    columns: dict[str, np.ndarray]
    rates: dict[str, float] = field(default_factory=dict)

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        paths = (str(self.folder / f"{i:05d}.jpg") for i in indices)
        return np.stack([cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB) for path in paths])

    def masks(self, indices: Sequence[int]) -> np.ndarray:
        paths = (str(self.folder / f"mask_{i:05d}.png") for i in indices)
        return np.stack([cv2.imread(path, cv2.IMREAD_GRAYSCALE) > 127 for path in paths])

    def features(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy")

    def column(self, name: str) -> np.ndarray:
        return self.columns[name]


def export(dataset: Dataset, features: str, root: Path) -> list[FolderClip]:
    """Write a data set as folders; the JPEG and PNG bytes are the store's own."""
    clips = []
    for clip in dataset:
        folder = root / clip.clip_id
        folder.mkdir(parents=True)
        for kind, pattern in (("frames", "{:05d}.jpg"), ("mouth_masks", "mask_{:05d}.png")):
            for i, data in enumerate(clip.value(kind)):
                (folder / pattern.format(i)).write_bytes(data)
        np.save(folder / f"{features}.npy", clip.features(features))
        columns = {name: clip.column(name) for name in ("pose_index", "identity_index")}
        clips.append(FolderClip(folder, clip.clip_id, clip.num_frames, columns))
    return clips


def from_folder(
    clips: list[FolderClip], stream: SampleStream, config: TrainConfig, spec: AudioSpec, batches: int
) -> list[Batch]:
    """The stream's samples one by one, as a map-style data set reads them."""
    waiting, done = [], []
    for epoch, block in stream.from_position(0):
        for row, k in block:
            clip: Any = clips[row]
            waiting += read_samples(clip, config, spec, [draw(clip, config, epoch, row)[k]])
            if len(waiting) == config.optim.batch_size:
                done.append(collate(waiting))
                waiting = []
                if len(done) == batches:
                    return done
    raise AssertionError("a stream is endless")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("build/bench-loader"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    _, store = prepared_sample(arguments.out, 5)
    config = from_mapping(
        {
            "model": {"resolution": arguments.resolution, "audio": {"features": "logfbank"}},
            "loader": {"workers": 0},
            "optim": {"batch_size": 32},
        }
    )
    dataset = open_dataset(store, "train")
    spec = audio_spec(config.model.audio, dataset)
    stream = SampleStream(row_groups(dataset, trainable_rows(dataset)), config, 0, 1)
    times: dict[str, list[float]] = {"shards": [], "folder": []}
    with tempfile.TemporaryDirectory() as folder:
        clips = export(dataset, spec.id, Path(folder))
        for _ in range(arguments.repeats):
            started = time.process_time()
            shards = list(islice(loader(config, str(store), spec), arguments.batches))
            times["shards"].append(time.process_time() - started)
            started = time.process_time()
            files = from_folder(clips, stream, config, spec, arguments.batches)
            times["folder"].append(time.process_time() - started)
        for a, b in zip(shards, files, strict=True):
            assert a.names == b.names and torch.equal(a.target, b.target) and torch.equal(a.audio, b.audio)
    samples = arguments.batches * config.optim.batch_size
    rates = {name: samples / statistics.median(seconds) for name, seconds in times.items()}
    stored = dataset[0].value("face_size_px")
    print(f"{stored} px stored, {arguments.resolution} px asked for; samples per second of one core:")
    print(f"  shards            {rates['shards']:7.0f}")
    print(f"  JPEGs and .npy    {rates['folder']:7.0f}   ratio {rates['shards'] / rates['folder']:.2f}")
    (arguments.out / "loader.json").write_text(json.dumps({"samples_per_cpu_s": rates}, indent=1))


if __name__ == "__main__":
    main()
