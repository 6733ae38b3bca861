"""Weights for benchmarks: networks of the right shape that were never trained, under the published names.

    python tests/benchmarks/stand_in_weights.py FOLDER [syncnet inception alexnet avhubert-base]
    python tests/benchmarks/stand_in_weights.py FOLDER alexnet --backbone alexnet_features.npz
    SYNCDIFF_WEIGHTS=FOLDER syncdiff-eval … --unverified-weights

They do not change speed or memory; every figure made with them is marked, and means nothing. Only with
--backbone, the real convolutions of torchvision's AlexNet as arrays, does LPIPS mean what it should.
"""

from __future__ import annotations

import argparse
import runpy
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from pytorch_fid import inception
from syncnet_python.SyncNetModel import S as OriginalSyncNet

from syncdiff.pipeline.avhubert.checkpoint import read_checkpoint
from syncdiff.pipeline.avhubert.untrained import make_tiny_checkpoint

# Brings the activations of a randomly filled SyncNet into the range of the trained one's.
SYNCNET_SCALE = {"netcnnlip.0.weight": 1 / 255, "netcnnaud.0.weight": 0.02}


def filled(network: torch.nn.Module, scale: Mapping[str, float] | None = None) -> torch.nn.Module:
    """The network with numbers that depend on the names of its parameters only."""
    fill = runpy.run_path(str(Path(__file__).parents[1] / "deterministic_weights.py"))["fill_state_dict"]
    arrays = fill({name: tuple(value.shape) for name, value in network.state_dict().items()}, scale=scale)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return network.eval()


def syncnet() -> torch.nn.Module:
    return filled(OriginalSyncNet(), SYNCNET_SCALE)


def inception_network() -> torch.nn.Module:
    """As pytorch_fid.inception.fid_inception_v3 makes it, which would also fetch the published weights."""
    network = torchvision.models.inception_v3(
        weights=None, num_classes=1008, aux_logits=False, init_weights=False
    )
    for name, channels, pool_features in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        setattr(network, f"Mixed_{name}", inception.FIDInceptionA(channels, pool_features))
    for name, channels_7x7 in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        setattr(network, f"Mixed_{name}", inception.FIDInceptionC(768, channels_7x7))
    network.Mixed_7b = inception.FIDInceptionE_1(1280)
    network.Mixed_7c = inception.FIDInceptionE_2(2048)
    return filled(network)


def alexnet() -> torch.nn.Module:
    return filled(torchvision.models.alexnet(weights=None))


NETWORKS: dict[str, tuple[str, Callable[[], torch.nn.Module]]] = {
    "syncnet": ("syncnet_v2.model", syncnet),
    "inception": ("pt_inception-2015-12-05-6726825d.pth", inception_network),
    "alexnet": ("alexnet-owt-7be5be79.pth", alexnet),
}
HUBERT = "base_vox_iter5.pt"


def write_weights(folder: Path, names: list[str], backbone: Path | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name == "avhubert-base":
            tiny = read_checkpoint(make_tiny_checkpoint(folder / "tiny.safetensors"))
            torch.save({"model": tiny.state, "cfg": tiny.config}, folder / HUBERT)
            continue
        file, make = NETWORKS[name]
        state: dict[str, torch.Tensor] = make().state_dict()
        if name == "alexnet" and backbone is not None:
            with np.load(backbone) as arrays:
                real: dict[str, NDArray[np.float32]] = dict(arrays)
            state |= {key: torch.from_numpy(array) for key, array in real.items()}
        torch.save(state, folder / file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=[*NETWORKS, "avhubert-base"])
    parser.add_argument("--backbone", type=Path)
    options = parser.parse_args()
    write_weights(options.folder, options.names, options.backbone)


if __name__ == "__main__":
    main()
