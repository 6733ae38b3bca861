"""Small media made by ffmpeg, and networks with reproducible stand-in weights."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from syncnet_python.SyncNetModel import S as OriginalSyncNet

from syncdiff.evaluate.syncnet import SyncNet
from syncdiff.pipeline.ffmpeg_process import ffmpeg_binary

SYNCNET_SCALE = {"netcnnlip.0.weight": 1 / 255, "netcnnaud.0.weight": 0.02}


def fill(network: torch.nn.Module, scale: dict[str, float] | None = None) -> torch.nn.Module:
    """Overwrite all parameters and buffers by numbers that depend on their names only."""
    path = Path(__file__).parent.parent / "deterministic_weights.py"
    spec = importlib.util.spec_from_file_location("deterministic_weights", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    filled = module.fill_state_dict(shapes, scale=scale)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in filled.items()})
    return network.eval()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Threads that wait for one another are slow on a machine that has other work."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def original_syncnet() -> OriginalSyncNet:
    return fill(OriginalSyncNet(), SYNCNET_SCALE)


@pytest.fixture(scope="session")
def syncnet(original_syncnet: OriginalSyncNet) -> SyncNet:
    return SyncNet(original_syncnet)


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
