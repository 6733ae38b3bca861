"""AVS: does AV-HuBERT, which has learnt to understand speech from lips and sound, hear and see the same?

Yaman et al., "Audio-Visual Speech Representation Expert for Enhanced Talking Face Video Generation and
Evaluation" (2024): cosines of AV-HuBERT features,

    avs_u    of the sound with the lips of the generated clip
    avs_m    of sound and lips together, generated clip with reference
    avs_v    of the lips, generated clip with reference

Here: the encoder's last layer after its layer norm, the cosine of each 40 ms step, the mean over a clip's
steps. Values depend on checkpoint and layer, so they compare within one report only, which names both.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from syncdiff.evaluate.clip_pair import ClipPair, Faces
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.sync.av_correlation import longest_run
from syncdiff.pipeline.avhubert.encoder import AVHubertEncoder, prepare_for_inference
from syncdiff.pipeline.avhubert.inputs import extract, prepare_audio, prepare_video
from syncdiff.pipeline.avhubert.load import load_encoder
from syncdiff.pipeline.faces.align import crop_mouths, mouth_matrices
from syncdiff.pipeline.records import F32, I16, SAMPLES_PER_FRAME, U8, ClipError

MIN_FRAMES = 5


class AvHubert:
    """An AV-HuBERT encoder with both front ends. Raises CheckpointError for a file that holds none."""

    def __init__(self, checkpoint: Path, device: str) -> None:
        encoder, weights = load_encoder(checkpoint, "both")
        prepare_for_inference(encoder, torch.float32, device)
        self._encoder: AVHubertEncoder = encoder
        self.name = weights.checkpoint.name
        self.untrained = weights.checkpoint.untrained

    def features(self, pcm16: I16 | None, mouths: U8 | None, num_frames: int) -> F32:
        """Features [num_frames,D] of sound, mouth pictures [num_frames,96,96], or both."""
        audio = video = None
        if pcm16 is not None:
            audio = [prepare_audio(pcm16, num_frames, layer_norm=self._encoder.config.audio_layer_norm)[0]]
        if mouths is not None:
            video = [prepare_video(mouths)]
        return extract(self._encoder, audio, video)[0]


class _AvHubertMetric(Metric):
    needs_sound = True
    weights = ("avhubert-base",)

    def __init__(self, encoder: AvHubert) -> None:
        self._encoder = encoder

    def settings(self) -> dict[str, Any]:
        name, untrained = self._encoder.name, self._encoder.untrained
        return {"checkpoint": name, "layer": "final"} | ({"untrained": True} if untrained else {})

    def score(self, statistics: Statistics) -> dict[str, float]:
        return {value.name: float(np.mean(statistics[value.name])) for value in self.values}


class AvsUnpaired(_AvHubertMetric):
    """avs_u."""

    name = "avs_u"
    values = (Value("avs_u", "AVSu", "higher"),)
    needs_reference = False

    def measure(self, pair: ClipPair) -> Statistics:
        faces = pair.generated.speaker
        start, stop = speaking_frames(self.name, faces.present)
        frames = np.stack(list(islice(pair.generated.frames(), start, stop)))
        mouths = mouths_of(frames, faces, start)
        heard = self._encoder.features(sound_of(pair, start, stop), None, stop - start)
        seen = self._encoder.features(None, mouths, stop - start)
        return {"avs_u": cosines(heard, seen)}


class AvsPaired(_AvHubertMetric):
    """avs_m and avs_v."""

    name = "avs"
    values = (Value("avs_m", "AVSm", "higher"), Value("avs_v", "AVSv", "higher"))

    def measure(self, pair: ClipPair) -> Statistics:
        pair = replace(pair, by_time=True)  # in step with the sound, and at AV-HuBERT's 25 a second
        generated_faces, reference_faces = pair.generated_faces, pair.reference_faces
        start, stop = speaking_frames(self.name, generated_faces.present & reference_faces.present)
        frames = islice(pair.frames(), start, stop)
        generated, reference = (np.stack(side) for side in zip(*frames, strict=True))
        mouths = (mouths_of(generated, generated_faces, start), mouths_of(reference, reference_faces, start))
        pcm16 = sound_of(pair, start, stop)
        both = [self._encoder.features(pcm16, side, stop - start) for side in mouths]
        seen = [self._encoder.features(None, side, stop - start) for side in mouths]
        return {"avs_m": cosines(*both), "avs_v": cosines(*seen)}


def speaking_frames(metric: str, present: NDArray[np.bool_]) -> tuple[int, int]:
    """The longest stretch with a face. Raises ClipError `no-face` below MIN_FRAMES."""
    start, stop = longest_run(present)
    if stop - start < MIN_FRAMES:
        raise ClipError(metric, "no-face", f"no {MIN_FRAMES} frames in a row have a face")
    return start, stop


def sound_of(pair: ClipPair, start: int, stop: int) -> I16:
    """The sound of the frames [start, stop). Raises ClipError `no-sound`."""
    pcm16 = pair.sound.sound[start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME]
    if not len(pcm16):
        raise ClipError("avs", "no-sound", "the sound ends before the face appears")
    return pcm16


def mouths_of(frames: U8, faces: Faces, start: int) -> U8:
    """AV-HuBERT's mouth pictures [n,96,96] of frames [n,H,W,3], the first of which is frame `start`."""
    return crop_mouths(frames, mouth_matrices(faces.landmarks_px[start : start + len(frames)]))


def cosines(a: F32, b: F32) -> NDArray[np.float64]:
    """Cosine of each pair of rows: [T,D] and [T,D] to [T]."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(norms, 1e-12), np.float64)
