"""AV-HuBERT's input from sound and mouth pictures, and its features for many clips at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from syncdiff.pipeline.avhubert.encoder import AVHubertEncoder, LayerChoice
from syncdiff.pipeline.features.builtin import fit_length
from syncdiff.pipeline.features.filterbanks import logfbank
from syncdiff.pipeline.records import F32, I16, U8, check_array

MOUTH_SIZE_PX = 96  # AV-HuBERT, preparation/align_mouth.py
CROP_SIZE_PX = 88  # hubert_pretraining.py: image_crop_size, image_mean, image_std
IMAGE_MEAN, IMAGE_STD = 0.421, 0.165
LAYER_NORM_EPS = 1e-5  # torch.nn.functional.layer_norm's default

# Steps (of 40 ms) in one batch: on a CPU enough to keep the products efficient while the activations still
# fit the caches (measured by tests/benchmarks/bench_avhubert.py), on a GPU enough to fill it
MAX_STEPS_CPU, MAX_STEPS_GPU = 500, 16_000


def prepare_audio(pcm16: I16, num_frames: int, *, layer_norm: bool = True) -> tuple[F32, int]:
    """Sound to audio input [num_frames,104], and how many zero steps were added at the tail (negative: cut
    off).

    As AV-HuBERT's hubert_dataset.py: stacked log filter banks, made as long as the video, then normalised
    within each step (`normalize` in the checkpoint's task section). Raises ValueError for sound without a
    sample.
    """
    steps, padded = fit_length(logfbank(pcm16), num_frames)
    if layer_norm:
        wide = steps.astype(np.float64)
        centred = wide - wide.mean(axis=1, keepdims=True)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        steps = (centred / np.sqrt(variance + LAYER_NORM_EPS)).astype(np.float32)
    return steps, padded


def prepare_video(mouth_rois: U8) -> F32:
    """Grey mouth pictures [T,96,96] to video input [1,T,88,88]: the centre, scaled to 0..1, less 0.421, over
    0.165."""
    check_array("mouth_rois", mouth_rois, np.uint8, (None, MOUTH_SIZE_PX, MOUTH_SIZE_PX))
    margin = (MOUTH_SIZE_PX - CROP_SIZE_PX) // 2
    centre = mouth_rois[:, margin : margin + CROP_SIZE_PX, margin : margin + CROP_SIZE_PX]
    normalised = ((np.arange(256) / 255.0 - IMAGE_MEAN) / IMAGE_STD).astype(np.float32)
    return normalised[centre][None]


def extract(
    encoder: AVHubertEncoder,
    audio: list[F32] | None = None,
    video: list[F32] | None = None,
    layer: LayerChoice = "final",
    max_steps: int | None = None,
) -> list[F32]:
    """Features of many clips, in batches of similar length, on the device and in the type of the encoder.

    Shape: audio of [T_i,104] and video of [1,T_i,88,88], as `prepare_audio` and `prepare_video` give them;
    the results are [T_i,width], for `layer` "all" [T_i,layers*width] with layer 1 first. See
    `AVHubertEncoder.encode`.
    """
    clips = audio if audio is not None else video
    if clips is None:
        raise ValueError("neither audio nor video was given")
    device = next(encoder.parameters()).device
    limit = max_steps or (MAX_STEPS_CPU if device.type == "cpu" else MAX_STEPS_GPU)
    lengths = [len(clip) if audio is not None else clip.shape[1] for clip in clips]
    features: list[F32] = [np.empty((0, 0), np.float32)] * len(clips)
    with torch.inference_mode():
        for batch in plan_batches(lengths, limit):
            sounds = [_tensor(audio[i], device) for i in batch] if audio is not None else None
            mouths = [_tensor(video[i][0], device) for i in batch] if video is not None else None
            for index, values in zip(batch, encoder.encode(sounds, mouths, layer), strict=True):
                features[index] = values.flatten(1).cpu().numpy()
    return features


def plan_batches(lengths: list[int], max_steps: int) -> list[list[int]]:
    """Indices of clips in batches of at most `max_steps` steps, sorted by length; a longer clip is alone."""
    batches: list[list[int]] = []
    steps = 0
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        if not batches or steps + lengths[index] > max_steps:
            batches.append([])
            steps = 0
        batches[-1].append(index)
        steps += lengths[index]
    return batches


def _tensor(array: F32, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
