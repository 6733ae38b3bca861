"""Small media made by ffmpeg, and networks with reproducible stand-in weights."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import stand_in_weights
import torch
from typing_extensions import Self

from syncdiff.evaluate.clip_pair import ClipPair, Faces
from syncdiff.evaluate.metrics.base import Metric
from syncdiff.evaluate.metrics.sync.syncnet import SyncNet
from syncdiff.pipeline.faces.backend import MEAN_SHAPE
from syncdiff.pipeline.media.ffmpeg import ffmpeg_binary
from syncdiff.pipeline.media.probe import MediaInfo
from syncdiff.pipeline.records import ClipError


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Threads that wait for one another are slow on a machine that has other work."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def original_syncnet() -> torch.nn.Module:
    return stand_in_weights.syncnet()


@pytest.fixture(scope="session")
def syncnet(original_syncnet: torch.nn.Module) -> SyncNet:
    return SyncNet(original_syncnet)


@pytest.fixture(scope="session")
def inception_weights() -> dict[str, torch.Tensor]:
    """Random weights of pytorch-fid's network, with the names of its file."""
    return stand_in_weights.inception_network().state_dict()


@pytest.fixture(scope="session")
def make_media(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_media("a.mp4", "-f", "lavfi", ...) runs ffmpeg with these arguments and gives the file's path."""
    folder = tmp_path_factory.mktemp("media")

    def make(name: str, *arguments: str) -> Path:
        path = folder / name
        command = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-y", *arguments, str(path)]
        subprocess.run(command, check=True)
        return path

    return make


def picture(seconds: float = 1.0, fps: float = 25, size: str = "224x224") -> list[str]:
    """ffmpeg input: moving test pattern."""
    return ["-f", "lavfi", "-i", f"testsrc2=duration={seconds}:rate={fps}:size={size}"]


def tone(seconds: float = 1.0, rate_hz: int = 16000) -> list[str]:
    """ffmpeg input: noise of changing loudness."""
    noise = f"anoisesrc=duration={seconds}:sample_rate={rate_hz}:seed=1:amplitude=0.3"
    return ["-f", "lavfi", "-i", f"{noise},tremolo=f=4"]


class StandIn:
    """What `Footage` says of a video that stores its pictures at 25 per second."""

    info = MediaInfo(has_video=True, has_audio=False, duration_s=None, source_fps=25.0)
    varying_rate = False

    @property
    def stored(self) -> Self:
        return self


class StillFootage(StandIn):
    """Stands for a video of one repeated picture, whose face (dlib's mean shape) is known."""

    def __init__(self, frame: np.ndarray, frames: int, face: bool, sound: np.ndarray | None = None) -> None:
        self.frame, self.num_frames, self.has_face = frame, frames, face
        self.size_px = (frame.shape[1], frame.shape[0])
        self._sound = sound

    def frames(self) -> Iterator[np.ndarray]:
        return (self.frame for _ in range(self.num_frames))

    @property
    def speaker(self) -> Faces:
        if not self.has_face:
            raise ClipError("track", "no-face", "no face found")
        width, height = self.size_px
        side = 0.6 * min(width, height)
        shape = MEAN_SHAPE * side + np.array([width - side, height - side]) / 2
        return Faces(
            np.ones(self.num_frames, bool), np.tile(shape.astype(np.float32), (self.num_frames, 1, 1))
        )

    def face_like(self, other: Faces) -> Faces:
        return self.speaker

    @property
    def sound(self) -> np.ndarray:
        if self._sound is None:
            raise ClipError("media", "no-sound", "the file holds no sound")
        return self._sound


class StillPair:
    """A pair of still pictures of one size with the same face."""

    def __init__(self, made: np.ndarray, true: np.ndarray, *, frames: int = 2, face: bool = True) -> None:
        generated, reference = StillFootage(made, frames, face), StillFootage(true, frames, face)
        self.pair = ClipPair("still", generated, reference, generated)  # type: ignore[arg-type]
        faces = reference.speaker if face else None
        if faces is not None:
            self.mouth_centre_px = np.rint(faces.landmarks_px[0, 48:68].mean(axis=0)).astype(int)
            self.face_box_px = np.rint(faces.boxes_px[0]).astype(int)


class MovingFootage(StandIn):
    """Stands for a video of grey pictures, or of those given, with a face whose mouth opens as told."""

    size_px = (200, 160)

    def __init__(
        self,
        opening: np.ndarray,
        sound: np.ndarray | None = None,
        *,
        frames: list[np.ndarray] | None = None,
        faces: Faces | None = None,
        face_share: float = 0.5,
    ) -> None:
        self.opening, self._sound = opening, sound
        self._frames = frames or [np.full((160, 200, 3), 128, np.uint8)] * len(opening)
        self.num_frames = len(opening)
        side = face_share * 160
        shapes = np.tile((MEAN_SHAPE * side + np.array([200 - side, 160 - side]) / 2), (len(opening), 1, 1))
        eyes = np.hypot(*(MEAN_SHAPE[36:42].mean(axis=0) - MEAN_SHAPE[42:48].mean(axis=0))) * side
        shapes[:, 61:64, 1], shapes[:, 65:68, 1] = shapes[:, 61:64, 1].mean(), shapes[:, 61:64, 1].mean()
        shapes[:, 65:68, 0] = shapes[:, 61:64, 0][:, ::-1]
        shapes[:, 65:68, 1] += (opening * eyes)[:, None]
        self.faces = faces or Faces(np.ones(len(opening), bool), shapes.astype(np.float32))

    def frames(self) -> Iterator[np.ndarray]:
        return iter(self._frames)

    @property
    def speaker(self) -> Faces:
        return self.faces

    def face_like(self, other: Faces) -> Faces:
        return self.faces

    @property
    def sound(self) -> np.ndarray:
        if self._sound is None:
            raise ClipError("media", "no-sound", "the file holds no sound")
        return self._sound


def pair_of(made: MovingFootage, true: MovingFootage | None = None) -> ClipPair:
    return ClipPair("moving", made, true, made)  # type: ignore[arg-type]


def values_of(metric: Metric, pair: ClipPair) -> dict[str, float]:
    return metric.score(metric.measure(pair))
