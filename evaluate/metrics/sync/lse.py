"""Lip-sync error by SyncNet: LSE-D, LSE-C and offset, by the protocol of Wav2Lip's LRS script.

Source: Prajwal et al., "A Lip Sync Expert Is All You Need for Speech to Lip Generation In The Wild" (2020),
Rudrabha/Wav2Lip, evaluation/scores_LSE: SyncNetInstance_calc_scores.py and calculate_scores_LRS.py. No face
is searched: the whole frame goes to SyncNet, so a clip should be a face crop, as those of LRS2 and LRS3 are.

The distances are Euclidean, of embeddings that are not normalised. The audio embeddings are padded with
zeros at both ends, so distances at large offsets include some to a zero vector. That is the definition of
the published figures, and it is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.sync.lse_media import jpeg_frames, protocol_sound
from syncdiff.evaluate.metrics.sync.syncnet import WINDOW_FRAMES, SyncNet
from syncdiff.pipeline.features.filterbanks import mfcc
from syncdiff.pipeline.media.probe import MediaInfo
from syncdiff.pipeline.records import FPS, I16, SAMPLES_PER_FRAME, U8, ClipError

MAX_SHIFT_FRAMES = 15
LSE_VALUES = (
    Value("lse_d", "LSE-D", "lower"),
    Value("lse_c", "LSE-C", "higher"),
    Value("sync_offset", "offset", "zero", "frames", 2),
)


@dataclass(frozen=True)
class SyncDistances:
    """Mean distance over windows at each of the 31 offsets [31] float32, and what it was computed from."""

    mean_distances: Tensor
    windows: int
    frames: int
    samples: int

    @property
    def lse_d(self) -> float:
        return float(self.mean_distances.min())

    @property
    def lse_c(self) -> float:
        return float(self.mean_distances.median() - self.mean_distances.min())

    @property
    def offset_frames(self) -> int:
        """15 - argmin: positive where the sound comes early, the negative of `av_correlation`'s lag."""
        return MAX_SHIFT_FRAMES - int(self.mean_distances.argmin())


class LipSync(Metric):
    """LSE by protocol `wav2lip-lrs`. fps: see `jpeg_frames`."""

    name = "lse"
    values: ClassVar[tuple[Value, ...]] = LSE_VALUES
    needs_reference = False
    needs_sound = True
    weights = ("syncnet",)

    def __init__(self, network: SyncNet, fps: float | None = FPS) -> None:
        self._network = network
        self._fps = fps

    def settings(self) -> dict[str, Any]:
        return {"protocol": "wav2lip-lrs", "fps": self._fps}

    def distances(self, pair: ClipPair) -> SyncDistances:
        """Distances of the generated clip and the sound that drove it. Raises as `sync_distances`."""
        clip, sound = pair.generated, pair.sound
        return sync_distances(
            self._network, clip.path, sound.path, fps=self._fps, video_info=clip.info, sound_info=sound.info
        )

    def measure(self, pair: ClipPair) -> Statistics:
        distances = self.distances(pair)
        return {
            "mean_distances": distances.mean_distances.numpy(),
            "windows": np.int64(distances.windows),
            "frames": np.int64(distances.frames),
            "samples": np.int64(distances.samples),
        }

    def score(self, statistics: Statistics) -> dict[str, float]:
        distances = SyncDistances(
            torch.from_numpy(np.asarray(statistics["mean_distances"])),
            *(int(statistics[name]) for name in ("windows", "frames", "samples")),
        )
        return {
            "lse_d": distances.lse_d,
            "lse_c": distances.lse_c,
            "sync_offset": float(distances.offset_frames),
        }


def sync_distances(
    network: SyncNet,
    video: Path,
    sound: Path | None = None,
    *,
    fps: float | None = FPS,
    video_info: MediaInfo | None = None,
    sound_info: MediaInfo | None = None,
) -> SyncDistances:
    """Distances of one video and its sound (of `sound`, where that is given instead).

    Raises ClipError("media", ...) for what cannot be read, and ClipError("lse", "too-short").
    """
    pcm = protocol_sound(sound or video, info=sound_info or (None if sound else video_info))
    return distances_between(network, jpeg_frames(video, fps=fps, info=video_info), pcm)


def distances_between(network: SyncNet, pictures: Iterable[U8], pcm: I16) -> SyncDistances:
    """Distances of frames [224,224,3] BGR at 25 per second and 16 kHz sound that starts with them.

    Raises ClipError("lse", "too-short").
    """
    lips, frames = embed_frames(network, pictures)
    windows = count_windows(frames, len(pcm))
    if windows < 1:
        raise ClipError("lse", "too-short", f"{frames} frames and {len(pcm)} samples hold no window")
    speech = embed_sound(network, pcm, windows)
    return SyncDistances(mean_distances(lips[:windows], speech), windows, frames, len(pcm))


def count_windows(frames: int, samples: int) -> int:
    """Windows that the script compares: its loop ends one short of the last complete window."""
    return min(frames, samples // SAMPLES_PER_FRAME) - WINDOW_FRAMES


def embed_frames(network: SyncNet, frames: Iterable[U8]) -> tuple[Tensor, int]:
    """Embeddings [frames - 4, 1024] of a stream of frames [224,224,3], and how many frames there were.

    A few frames are held at a time, so the length of the video does not matter.
    """
    held: list[U8] = []
    parts: list[Tensor] = []
    total = 0
    for batch in _batches(frames, network.batch_size):
        total += len(batch)
        held += batch
        if len(held) >= WINDOW_FRAMES:
            parts.append(network.embed_lips(torch.from_numpy(np.stack(held))))
            held = held[1 - WINDOW_FRAMES :]
    return (torch.cat(parts) if parts else torch.zeros(0, 0)), total


def embed_sound(network: SyncNet, pcm: I16, windows: int) -> Tensor:
    """Embeddings [windows,1024] of the sound beside each window."""
    return network.embed_sound(torch.from_numpy(mfcc(pcm).T), windows)


def mean_distances(lips: Tensor, speech: Tensor, max_shift: int = MAX_SHIFT_FRAMES) -> Tensor:
    """Mean over windows of the distance between lips and speech shifted by -max_shift..max_shift windows.

    Shape: lips and speech [n,D] to [2 * max_shift + 1]; speech is zero beyond its ends.
    """
    padded = F.pad(speech, (0, 0, max_shift, max_shift))
    shifted = (padded[shift : shift + len(lips)] for shift in range(2 * max_shift + 1))
    return torch.stack([F.pairwise_distance(lips, speech_there).mean() for speech_there in shifted])


def _batches(frames: Iterable[U8], size: int) -> Iterator[list[U8]]:
    source = iter(frames)
    while batch := list(islice(source, size)):
        yield batch
