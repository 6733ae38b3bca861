"""LPIPS: distance of pictures in the features of a trained network.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018), by the
authors' package `lpips`, version 0.1, AlexNet. The package holds the linear weights; AlexNet itself is
torchvision's file, which the package would download unasked, and which is therefore loaded here.

The values depend on the size of the pictures; a report names region and size.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from syncdiff.evaluate.clip_pair import ClipPair, resize
from syncdiff.evaluate.metrics.base import Metric, Statistics, Value
from syncdiff.evaluate.metrics.regions import Region, crops
from syncdiff.pipeline.records import U8, ClipError

if TYPE_CHECKING:
    import lpips


BATCH = 8
MIN_SIDE_PX = 32  # below it AlexNet's last maps are empty


class Lpips(Metric):
    """size_px: side to which the region is scaled; None compares it as it is."""

    name = "lpips"
    values = (Value("lpips", "LPIPS", "lower"),)
    weights = ("alexnet",)

    def __init__(self, network: lpips.LPIPS, region: Region, size_px: int | None) -> None:
        self._network = network
        self._region: Region = region
        self._size_px = size_px

    def settings(self) -> dict[str, Any]:
        return {"network": "alex v0.1", "region": self._region, "size_px": self._size_px}

    def measure(self, pair: ClipPair) -> Statistics:
        pairs = self._sized(crops(pair, self._region))
        distances: list[float] = []
        while batch := list(islice(pairs, BATCH if self._size_px or self._region == "frame" else 1)):
            generated, reference = (np.stack(side) for side in zip(*batch, strict=True))
            distances += lpips_distances(self._network, generated, reference).tolist()
        if not distances:
            raise ClipError(self.name, "no-frames", "there is no frame to compare")
        return {"per_frame": np.array(distances)}

    def score(self, statistics: Statistics) -> dict[str, float]:
        return {"lpips": float(np.mean(statistics["per_frame"]))}

    def _sized(self, pairs: Iterator[tuple[U8, U8]]) -> Iterator[tuple[U8, U8]]:
        for generated, reference in pairs:
            if self._size_px is not None:
                size = (self._size_px, self._size_px)
                yield resize(generated, size), resize(reference, size)
            elif min(reference.shape[:2]) < MIN_SIDE_PX:
                height, width = reference.shape[:2]
                detail = f"{width}x{height} is smaller than {MIN_SIDE_PX} px"
                raise ClipError(self.name, "region-too-small", detail)
            else:
                yield generated, reference


@torch.inference_mode()
def lpips_distances(network: lpips.LPIPS, a: U8, b: U8) -> NDArray[np.float64]:
    """Distances [n] of pictures [n,H,W,3] RGB."""
    device = next(network.parameters()).device
    planes = (torch.from_numpy(side).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1 for side in (a, b))
    return np.asarray(network(*planes).flatten().double().cpu().numpy())


def build_lpips(alexnet: Mapping[str, Tensor]) -> lpips.LPIPS:
    """LPIPS with AlexNet's convolutions, named as in torchvision. Raises RuntimeError if they do not fit."""
    import lpips  # brings torchvision: two seconds that other metrics do without

    with warnings.catch_warnings():  # the package still builds AlexNet by torchvision's older arguments
        warnings.simplefilter("ignore", UserWarning)
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    # lpips groups the layers of torchvision's `features` into slices and keeps their numbers: features.3
    # becomes slice2.3
    numbers = {name.split(".", 1)[1]: name for name in network.net.state_dict()}
    backbone = {
        numbers[name.removeprefix("features.")]: tensor
        for name, tensor in alexnet.items()
        if name.removeprefix("features.") in numbers
    }
    network.net.load_state_dict(backbone)
    return network.eval()
