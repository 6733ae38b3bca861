"""Weights that are the published are read here, all others in a process with limits."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from syncdiff.evaluate.metrics.registry import METRICS, Tools
from syncdiff.evaluate.protocol import Protocol
from syncdiff.pipeline.records import CheckpointError
from syncdiff.pipeline.weights import torch_file
from syncdiff.pipeline.weights.published import WeightFile, entry_named

NEEDED = {"lse": "syncnet", "lpips": "alexnet", "fid": "inception"}


def weight_file(name: str, path: Path, verified: bool = False) -> WeightFile:
    return WeightFile(entry_named(name), path, "", verified)


@pytest.mark.parametrize("verified", [True, False])
def test_both_ways_give_the_same_tensors(tmp_path: Path, verified: bool) -> None:
    state = {"b": torch.arange(6).reshape(2, 3), "a": torch.tensor(1.5), "empty": torch.zeros(0, 3)}
    torch.save(state, tmp_path / "a.pth")
    weights = torch_file.read_weights(weight_file("alexnet", tmp_path / "a.pth", verified))
    assert list(weights) == list(state)
    assert all(torch.equal(weights[name], state[name]) for name in state)


class Attack:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("metric", NEEDED)
def test_unverified_weights_of_a_metric_run_nothing(tmp_path: Path, metric: str) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, "epoch": Attack(tmp_path / "ran")}, tmp_path / "w.pth")
    tools = Tools("cpu", {NEEDED[metric]: weight_file(NEEDED[metric], tmp_path / "w.pth")})
    with pytest.raises(CheckpointError, match=r"w\.pth names posix\.mkdir, which no checkpoint needs"):
        METRICS[metric].make(tools, Protocol())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("metric", NEEDED)
def test_unverified_weights_of_a_metric_have_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    """Tensors that claim to be huge views of a few bytes: in this process they would be made in full."""
    monkeypatch.setattr(torch_file, "MEMORY_BYTES", 64 << 20)
    torch.save({"weight": torch.zeros(1).expand(1 << 34)}, tmp_path / "bomb.pth")
    tools = Tools("cpu", {NEEDED[metric]: weight_file(NEEDED[metric], tmp_path / "bomb.pth")})
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=r"bomb\.pth is damaged or an attack"):
        METRICS[metric].make(tools, Protocol())
    assert time.monotonic() - started < 60
