"""All metrics by name, in the order of the tables. A new one is a file, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from syncdiff.evaluate.fidelity import Psnr, PsnrFace, PsnrMouth, Ssim, SsimFace, SsimMouth, TalkLip
from syncdiff.evaluate.lipsync import LipSync
from syncdiff.evaluate.metric import Metric
from syncdiff.evaluate.protocol import Protocol
from syncdiff.evaluate.syncnet import SyncNet, load_original


@dataclass(frozen=True)
class Tools:
    """What a worker process has at hand.

    device: "cpu" or "cuda". weights: files that were found and checked, by their names in
    `syncdiff.pipeline.weights`.
    """

    device: str
    weights: Mapping[str, Path]


@dataclass(frozen=True)
class Entry:
    """A metric's class, whose facts are read without loading anything, and how to make one.

    make is called once per process and may load networks. weights: names of the files needed under a
    protocol, where they are not the class's own.
    """

    metric: type[Metric]
    make: Callable[[Tools, Protocol], Metric]
    weights_for: Callable[[Protocol], tuple[str, ...]] | None = None

    def weights(self, protocol: Protocol) -> tuple[str, ...]:
        return self.metric.weights if self.weights_for is None else self.weights_for(protocol)


def make_lip_sync(tools: Tools, protocol: Protocol) -> Metric:
    network = SyncNet(load_original(tools.weights["syncnet"])).to(tools.device)
    return LipSync(network, fps=protocol.lse_fps)


METRICS: Mapping[str, Entry] = {
    "lse": Entry(LipSync, make_lip_sync),
    "psnr": Entry(Psnr, lambda tools, protocol: Psnr()),
    "psnr_face": Entry(PsnrFace, lambda tools, protocol: PsnrFace()),
    "psnr_mouth": Entry(PsnrMouth, lambda tools, protocol: PsnrMouth()),
    "ssim": Entry(Ssim, lambda tools, protocol: Ssim()),
    "ssim_face": Entry(SsimFace, lambda tools, protocol: SsimFace()),
    "ssim_mouth": Entry(SsimMouth, lambda tools, protocol: SsimMouth()),
    "talklip": Entry(TalkLip, lambda tools, protocol: TalkLip()),
}
