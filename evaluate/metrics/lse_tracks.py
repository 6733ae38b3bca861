"""Lip-sync error by protocol `syncnet-tracks`: faces found and followed by S3FD, as on videos in the wild.

Source: Wav2Lip's script for real videos (evaluation/scores_LSE, calculate_scores_real_videos.sh) and
LatentSync's evaluation, both of which run SyncNet's own pipeline; here through
`syncnet_python.SyncNetPipeline`: the video at 25 fps, S3FD on a quarter of its size, tracks cut at scene
changes, crops of 224x224 at crop scale 0.4, SyncNet on each track.

Tracks of no more than `min_track_frames` frames are left out (the pipeline's rule: 100 in Wav2Lip, 50 in
LatentSync), so short clips vanish; they are counted as failed, reason "no-track". A clip's value is the mean
over its tracks, its offset that of the most confident one. Values do not compare with those of
`wav2lip-lrs`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
import torch
from syncnet_python import SyncNetPipeline
from syncnet_python.syncnet_pipeline import PipelineConfig

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics
from syncdiff.evaluate.metrics.lse import LSE_VALUES
from syncdiff.pipeline.media.ffmpeg import ffmpeg_binary
from syncdiff.pipeline.media.probe import INPUT_OPTIONS, MediaInfo
from syncdiff.pipeline.records import FPS, ClipError


class LipSyncTracks(Metric):
    """LSE by protocol `syncnet-tracks`."""

    name = "lse"
    values = LSE_VALUES
    needs_reference = False
    needs_sound = True
    weights = ("syncnet", "s3fd-syncnet")

    def __init__(self, pipeline: SyncNetPipeline) -> None:
        self._pipeline = pipeline

    def settings(self) -> dict[str, Any]:
        config: PipelineConfig = self._pipeline.cfg
        return {
            "protocol": "syncnet-tracks",
            "fps": config.frame_rate,
            "min_track_frames": config.min_track,
            "crop_scale": config.crop_scale,
            "min_face_px": config.min_face_size,
        }

    def measure(self, pair: ClipPair) -> Statistics:
        _require(pair.generated.info, pair.sound.info)
        sound = None if pair.sound.path == pair.generated.path else pair.sound.path
        offsets, confidences, distances = score_tracks(self._pipeline, pair.generated.path, sound)
        if not offsets:
            frames = self._pipeline.cfg.min_track
            raise ClipError(self.name, "no-track", f"no face could be followed for more than {frames} frames")
        return {
            "offsets": np.array(offsets),
            "confidences": np.array(confidences),
            "distances": np.array(distances),
        }

    def score(self, statistics: Statistics) -> dict[str, float]:
        confidences = statistics["confidences"]
        return {
            "lse_d": float(np.mean(statistics["distances"])),
            "lse_c": float(np.mean(confidences)),
            "sync_offset": float(statistics["offsets"][np.argmax(confidences)]),
        }


def load_pipeline(syncnet: Path, s3fd: Path, device: str, min_track_frames: int) -> SyncNetPipeline:
    """syncnet-python's pipeline with these weights.

    Raises RuntimeError for files of other networks, pickle.UnpicklingError for files that hold more than
    tensors.
    """
    config = PipelineConfig(
        s3fd_weights=str(s3fd), syncnet_weights=str(syncnet), min_track=min_track_frames, frame_rate=FPS
    )
    return SyncNetPipeline(config, device=device)


def score_tracks(
    pipeline: SyncNetPipeline, video: Path, sound: Path | None
) -> tuple[list[int], list[float], list[float]]:
    """Offset, confidence and least distance of each track of a video.

    Raises ClipError("lse", "pipeline-failed") where the pipeline does.
    """
    with tempfile.TemporaryDirectory(prefix="syncdiff-") as folder:
        # Links: the pipeline passes names on to ffmpeg, which could take odd ones for options or addresses.
        links = [Path(folder) / name for name in ("video", "sound")]
        links[0].symlink_to(video.absolute())
        if sound is not None:
            links[1].symlink_to(sound.absolute())
        with _own_ffmpeg(pipeline, Path(folder)), _quiet(), torch.no_grad():
            try:
                offsets, confidences, distances, *_ = pipeline.inference(
                    str(links[0]), None if sound is None else str(links[1])
                )
            except (RuntimeError, ffmpeg.Error) as error:
                raise ClipError("lse", "pipeline-failed", str(error)) from error
    return offsets, confidences, distances


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what the pipeline prints and what scenedetect logs for each video."""
    logger = logging.getLogger("pyscenedetect")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)


def _require(video: MediaInfo, sound: MediaInfo) -> None:
    if not video.has_video:
        raise ClipError("media", "no-video", "the file holds no moving picture")
    if not sound.has_audio:
        raise ClipError("media", "no-sound", "the file holds no sound")


@contextlib.contextmanager
def _own_ffmpeg(pipeline: SyncNetPipeline, folder: Path) -> Iterator[None]:
    """Lets the pipeline, which looks for `ffmpeg` on PATH, find ours: silent, and without other protocols.

    The options stand before the first input of each command, which is the untrusted one.
    """
    options = ["-hide_banner", "-nostdin", "-loglevel", "error"]
    options += [word for key, value in INPUT_OPTIONS.items() for word in (f"-{key}", str(value))]
    script = folder / "ffmpeg"
    script.write_text(f'#!/bin/sh\nexec {shlex.join([ffmpeg_binary(), *options])} "$@"\n', "utf-8")
    script.chmod(0o700)
    before, bin_before = os.environ.get("PATH", ""), pipeline.cfg.ffmpeg_bin
    os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
    pipeline.cfg.ffmpeg_bin = str(script)
    try:
        yield
    finally:
        os.environ["PATH"] = before
        pipeline.cfg.ffmpeg_bin = bin_before
