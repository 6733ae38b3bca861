"""All metrics by name, in the order of the tables. A new one is a file, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from syncdiff.evaluate.avs import AvHubert, AvsPaired, AvsUnpaired
from syncdiff.evaluate.correlation import AvCorrelation
from syncdiff.evaluate.fid import Fid, load_inception
from syncdiff.evaluate.fidelity import Psnr, PsnrFace, PsnrMouth, Ssim, SsimFace, SsimMouth, TalkLip
from syncdiff.evaluate.identity import DlibEmbedder, Identity, TorchScriptEmbedder
from syncdiff.evaluate.landmarks import LandmarkDistance
from syncdiff.evaluate.lipsync import LipSync
from syncdiff.evaluate.lipsync_tracks import LipSyncTracks, load_pipeline
from syncdiff.evaluate.metric import Metric
from syncdiff.evaluate.perceptual import Lpips, load_lpips
from syncdiff.evaluate.protocol import Protocol
from syncdiff.evaluate.sharpness import Sharpness
from syncdiff.evaluate.stability import Stability
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


def lip_sync_weights(protocol: Protocol) -> tuple[str, ...]:
    return LipSyncTracks.weights if protocol.lse == "syncnet-tracks" else LipSync.weights


def make_lip_sync(tools: Tools, protocol: Protocol) -> Metric:
    weights = tools.weights
    if protocol.lse == "syncnet-tracks":
        frames = protocol.lse_min_track_frames
        return LipSyncTracks(load_pipeline(weights["syncnet"], weights["s3fd-syncnet"], tools.device, frames))
    return LipSync(SyncNet(load_original(weights["syncnet"])).to(tools.device), fps=protocol.lse_fps)


def make_identity(tools: Tools, protocol: Protocol) -> Metric:
    if protocol.identity == "dlib":
        return Identity(DlibEmbedder())
    return Identity(TorchScriptEmbedder(Path(protocol.identity), tools.device))


def make_lpips(tools: Tools, protocol: Protocol) -> Metric:
    network = load_lpips(tools.weights["alexnet"]).to(tools.device)
    return Lpips(network, protocol.lpips_region, protocol.lpips_size_px or None)


def make_fid(tools: Tools, protocol: Protocol) -> Metric:
    return Fid(load_inception(tools.weights["inception"]).to(tools.device), protocol.fid_region)


def avhubert_weights(protocol: Protocol) -> tuple[str, ...]:
    return (protocol.avhubert,)


def make_avs(kind: type[AvsPaired] | type[AvsUnpaired]) -> Callable[[Tools, Protocol], Metric]:
    return lambda tools, protocol: kind(AvHubert(tools.weights[protocol.avhubert], tools.device))


METRICS: Mapping[str, Entry] = {
    "lse": Entry(LipSync, make_lip_sync, lip_sync_weights),
    "correlation": Entry(AvCorrelation, lambda tools, protocol: AvCorrelation()),
    "psnr": Entry(Psnr, lambda tools, protocol: Psnr()),
    "psnr_face": Entry(PsnrFace, lambda tools, protocol: PsnrFace()),
    "psnr_mouth": Entry(PsnrMouth, lambda tools, protocol: PsnrMouth()),
    "ssim": Entry(Ssim, lambda tools, protocol: Ssim()),
    "ssim_face": Entry(SsimFace, lambda tools, protocol: SsimFace()),
    "ssim_mouth": Entry(SsimMouth, lambda tools, protocol: SsimMouth()),
    "talklip": Entry(TalkLip, lambda tools, protocol: TalkLip()),
    "lpips": Entry(Lpips, make_lpips),
    "fid": Entry(Fid, make_fid),
    "lmd": Entry(LandmarkDistance, lambda tools, protocol: LandmarkDistance(protocol.lmd_face_px)),
    "identity": Entry(Identity, make_identity),
    "sharpness": Entry(Sharpness, lambda tools, protocol: Sharpness()),
    "stability": Entry(Stability, lambda tools, protocol: Stability()),
    "avs_u": Entry(AvsUnpaired, make_avs(AvsUnpaired), avhubert_weights),
    "avs": Entry(AvsPaired, make_avs(AvsPaired), avhubert_weights),
}
