"""The package is not installed for tests: a stand-in shows what it would be asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from syncdiff.evaluate.metrics.image.pyiqa import NETWORKS, load_network, metric_class
from syncdiff.evaluate.metrics.registry import METRICS
from syncdiff.pipeline.records import ClipError
from syncdiff.pipeline.weights.published import entry_named

from ...conftest import StillPair, values_of


class Brightness(torch.nn.Module):
    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        assert pictures.shape[:2] == (1, 3)
        return pictures[:, 0].mean().reshape(1, 1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Calls of the stand-in's `create_metric`."""
    calls: list[dict[str, Any]] = []

    def create_metric(name: str, **options: Any) -> torch.nn.Module:
        calls.append(
            {"name": name, "only_tensors": os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD"), **options}
        )
        if "gone" in options["pretrained_model_path"]:
            raise OSError("offline mode is enabled")
        return Brightness()

    package = ModuleType("pyiqa")
    package.create_metric = create_metric  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyiqa", package)
    return calls


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gets_our_file_and_stays_offline(name: str, asked: list[dict[str, Any]]) -> None:
    metric = metric_class(name)(load_network(name, Path("here.pth"), "cpu"), "cpu")
    picture = np.full((64, 80, 3), (255, 51, 0), np.uint8)
    values = values_of(metric, StillPair(picture, picture, frames=7).pair)
    assert values == {f"pyiqa_{name}": pytest.approx(1)}
    assert len(metric.measure(StillPair(picture, picture, frames=7).pair)["per_frame"]) == 2
    expected = {"name": name, "device": "cpu", "pretrained_model_path": "here.pth", "only_tensors": "1"}
    assert asked[0] == {**expected, **NETWORKS[name].options}
    import huggingface_hub.constants

    assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_what_would_be_downloaded_is_said(asked: list[dict[str, Any]]) -> None:
    with pytest.raises(ClipError, match=r"without downloading: offline mode.*timm\.create_model"):
        load_network("hyperiqa", Path("gone.pth"), "cpu")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(ClipError, match=r"pip install 'syncdiff\[pyiqa\]'"):
        load_network("musiq", Path("here.pth"), "cpu")


@pytest.mark.parametrize("name", NETWORKS)
def test_its_weights_are_in_our_registry(name: str) -> None:
    metric = METRICS[f"pyiqa:{name}"].metric
    assert entry_named(metric.weights[0]).used_by == metric.name
