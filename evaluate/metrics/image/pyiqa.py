"""No-reference quality by trained networks of the package pyiqa (chaofengc/IQA-PyTorch): HyperIQA and others.

They are given whole frames at their own size, every fifth, RGB in 0..1; a clip's value is the mean. pyiqa is
an extra, not installed with us: it is licensed for non-commercial use (PolyForm), and brings much with it.

By itself it downloads whatever it misses. Here its weights come from our registry, like all others, and the
Hugging Face hub is told to stay offline before pyiqa is imported; its files are read as tensors only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from syncdiff.evaluate.clip_pair import ClipPair
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.image.sampled_frames import FRAME_STEP, sampled_frames
from syncdiff.pipeline.records import ClipError
from syncdiff.pipeline.store.manifest import package_version


@dataclass(frozen=True)
class Quality:
    """title: of the column. weights: in our registry. options: for the network's constructor."""

    title: str
    weights: str
    options: Mapping[str, Any]


# TOPIQ's file holds its backbone, which need not be fetched beside it. HyperIQA's does, too, but pyiqa
# asks timm for one all the same.
NETWORKS: Mapping[str, Quality] = {
    "hyperiqa": Quality("HyperIQA", "pyiqa-hyperiqa", {}),
    "musiq": Quality("MUSIQ (KonIQ)", "pyiqa-musiq", {}),
    "topiq_nr": Quality("TOPIQ (KonIQ)", "pyiqa-topiq", {"backbone_pretrain": False}),
}


class PyiqaMetric(Metric):
    """A network of pyiqa; `network` takes pictures [1,3,H,W] in 0..1 to a score."""

    needs_reference = False

    def __init__(self, network: torch.nn.Module, device: str) -> None:
        self._network, self._device = network, device

    def settings(self) -> dict[str, Any]:
        return {"package": f"pyiqa {package_version('pyiqa')}", "region": "frame", "frame_step": FRAME_STEP}

    def measure(self, pair: ClipPair) -> Statistics:
        values = []
        for frame in sampled_frames(pair):
            picture = torch.from_numpy(np.ascontiguousarray(frame)).to(self._device)
            with torch.inference_mode():
                score = self._network(picture.permute(2, 0, 1)[None].float() / 255)
            values.append(float(score.mean()))
        return {"per_frame": np.array(values)}

    def score(self, statistics: Statistics) -> dict[str, float]:
        return {self.values[0].name: float(np.mean(statistics["per_frame"]))}


def metric_class(name: str) -> type[PyiqaMetric]:
    """The metric `pyiqa:<name>`."""
    quality = NETWORKS[name]
    facts = {
        "name": f"pyiqa:{name}",
        "about": f"{quality.title} of whole frames, by the package pyiqa (an extra)",
        "values": (Value(f"pyiqa_{name}", quality.title, "higher"),),
        "weights": (quality.weights,),
        "__module__": __name__,
    }
    return type(f"Pyiqa_{name}", (PyiqaMetric,), facts)


def load_network(name: str, weights: Path, device: str) -> torch.nn.Module:
    """A network of pyiqa with the weights of a file.

    Raises ClipError("pyiqa", ...) with reason package-missing, or weights-missing where pyiqa wants more than
    that file.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
    try:
        import huggingface_hub.constants
        import pyiqa
    except ImportError as error:
        detail = f"pyiqa:{name} needs the package pyiqa: pip install 'syncdiff[pyiqa]' ({error})"
        raise ClipError("pyiqa", "package-missing", detail) from error
    huggingface_hub.constants.HF_HUB_OFFLINE = True  # where it had been imported before
    options = NETWORKS[name].options
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # pyiqa itself asks for weights_only=False
    try:
        network = pyiqa.create_metric(name, device=device, pretrained_model_path=str(weights), **options)
    except (OSError, RuntimeError) as error:
        detail = (
            f"pyiqa:{name} could not be made of {weights.name} without downloading: {error}. The backbone "
            "that it wants is fetched by: "
            "python -c \"import timm; timm.create_model('resnet50', pretrained=True)\""
        )
        raise ClipError("pyiqa", "weights-missing", detail) from error
    finally:
        del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
    assert isinstance(network, torch.nn.Module)
    return network.eval()
