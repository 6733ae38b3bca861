"""All metrics by name, in the order of the tables. A new one is a file, and a line here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from torch import Tensor

from syncdiff.evaluate.metrics.base import Metric
from syncdiff.evaluate.metrics.distribution.fid import Fid, build_inception
from syncdiff.evaluate.metrics.distribution.fvd import Fvd
from syncdiff.evaluate.metrics.distribution.i3d import build_i3d
from syncdiff.evaluate.metrics.identity.arcface import OnnxEmbedder
from syncdiff.evaluate.metrics.identity.csim import DlibEmbedder, FaceEmbedder, Identity, TorchScriptEmbedder
from syncdiff.evaluate.metrics.image.cpbd import Cpbd
from syncdiff.evaluate.metrics.image.lpips import Lpips, build_lpips
from syncdiff.evaluate.metrics.image.niqe import Niqe
from syncdiff.evaluate.metrics.image.psnr_ssim import (
    Psnr,
    PsnrFace,
    PsnrMouth,
    Ssim,
    SsimFace,
    SsimMouth,
    TalkLip,
)
from syncdiff.evaluate.metrics.image.pyiqa import NETWORKS as PYIQA_NETWORKS
from syncdiff.evaluate.metrics.image.pyiqa import load_network, metric_class
from syncdiff.evaluate.metrics.image.sharpness import Sharpness
from syncdiff.evaluate.metrics.image.temporal_stability import Stability
from syncdiff.evaluate.metrics.lips.lip_loudness import LipLoudness
from syncdiff.evaluate.metrics.lips.lip_reading import LipScore, WordErrors
from syncdiff.evaluate.metrics.lips.lmd import LandmarkDistance
from syncdiff.evaluate.metrics.lips.silence import SilentLips
from syncdiff.evaluate.metrics.lips.voice_activity import VoiceActivity
from syncdiff.evaluate.metrics.sync.av_correlation import AvCorrelation
from syncdiff.evaluate.metrics.sync.avs import AvHubert, AvsPaired, AvsUnpaired
from syncdiff.evaluate.metrics.sync.lse import LipSync
from syncdiff.evaluate.metrics.sync.lse_tracks import LipSyncTracks, build_detector
from syncdiff.evaluate.metrics.sync.silent_lse import SilentLse, SourceLse
from syncdiff.evaluate.metrics.sync.syncnet import SyncNet, build_original
from syncdiff.evaluate.protocol import Protocol
from syncdiff.evaluate.records import NotComputed
from syncdiff.evaluate.reference_features import ReferenceFeatures
from syncdiff.pipeline.avhubert.lip_reader import load_lip_reader
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.weights.published import WeightFile, WeightsError, registry, require
from syncdiff.pipeline.weights.torch_file import read_weights


@dataclass(frozen=True)
class Tools:
    """What a worker process has at hand.

    device: "cpu" or "cuda". weights: files that were found and hashed, by their names in
    `syncdiff.pipeline.weights.published`. features: folder for features of references, None to keep none.
    """

    device: str
    weights: Mapping[str, WeightFile]
    features: Path | None = None

    def kept(self, network: str) -> ReferenceFeatures:
        """Features of references by this network."""
        name = hashlib.sha256(network.encode()).hexdigest()[:16]
        return ReferenceFeatures(None if self.features is None else self.features / name)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What a file of weights holds. Raises CheckpointError."""
        return read_weights(self.weights[name])


@dataclass(frozen=True)
class Entry:
    """A metric's class, whose facts are read without loading anything, and how to make one.

    make is called once per process and may load networks. weights: names of the files needed under a
    protocol, where they are not the class's own. origin: of a metric that is not ours, where it is from.
    """

    metric: type[Metric]
    make: Callable[[Tools, Protocol], Metric]
    weights_for: Callable[[Protocol], tuple[str, ...]] | None = None
    origin: str = ""

    def weights(self, protocol: Protocol) -> tuple[str, ...]:
        return self.metric.weights if self.weights_for is None else self.weights_for(protocol)


def lip_sync_weights(protocol: Protocol) -> tuple[str, ...]:
    return LipSyncTracks.weights if protocol.lse == "syncnet-tracks" else LipSync.weights


def make_lip_sync(tools: Tools, protocol: Protocol) -> Metric:
    network = SyncNet(build_original(tools.tensors("syncnet"))).to(tools.device)
    if protocol.lse == "syncnet-tracks":
        detector = build_detector(tools.tensors("s3fd-syncnet"), tools.device)
        return LipSyncTracks(network, detector, protocol.lse_min_track_frames)
    return LipSync(network, fps=protocol.lse_fps)


def make_silent_lse(kind: type[SilentLse] | type[SourceLse]) -> Callable[[Tools, Protocol], Metric]:
    return lambda tools, protocol: kind(
        SyncNet(build_original(tools.tensors("syncnet"))).to(tools.device), fps=protocol.lse_fps
    )


def make_silent_lips(tools: Tools, protocol: Protocol) -> Metric:
    return SilentLips(None if protocol.sound == "silence" else VoiceActivity())


def make_identity(tools: Tools, protocol: Protocol) -> Metric:
    embedder: FaceEmbedder
    if protocol.identity == "dlib":
        embedder = DlibEmbedder()
    elif protocol.identity.endswith(".onnx"):
        embedder = OnnxEmbedder(Path(protocol.identity))
    else:
        embedder = TorchScriptEmbedder(Path(protocol.identity), tools.device)
    return Identity(embedder, tools.kept(embedder.name))


def make_lpips(tools: Tools, protocol: Protocol) -> Metric:
    network = build_lpips(tools.tensors("alexnet")).to(tools.device)
    return Lpips(network, protocol.lpips_region, protocol.lpips_size_px or None)


def make_fid(tools: Tools, protocol: Protocol) -> Metric:
    network = build_inception(tools.tensors("inception")).to(tools.device)
    return Fid(network, protocol.fid_region, tools.kept("inception"))


def avhubert_weights(protocol: Protocol) -> tuple[str, ...]:
    return (protocol.avhubert,)


def make_avs(kind: type[AvsPaired] | type[AvsUnpaired]) -> Callable[[Tools, Protocol], Metric]:
    return lambda tools, protocol: kind(AvHubert(tools.weights[protocol.avhubert].path, tools.device))


def pyiqa_entry(name: str) -> Entry:
    kind = metric_class(name)
    (weights,) = kind.weights
    return Entry(
        kind,
        lambda tools, protocol: kind(
            load_network(name, tools.weights[weights].path, tools.device), tools.device
        ),
    )


def lip_reader_weights(protocol: Protocol) -> tuple[str, ...]:
    """Those of a lip reader by name; none for one that is a file. Raises WeightsError."""
    asked = protocol.lip_reader
    if asked in {entry.name for entry in registry()}:
        return (asked,)
    if not Path(asked).is_file():
        raise WeightsError(f"--lip-reader: {asked} is neither a file nor the name of weights")
    return ()


def make_lip_reading(kind: type[WordErrors] | type[LipScore]) -> Callable[[Tools, Protocol], Metric]:
    def make(tools: Tools, protocol: Protocol) -> Metric:
        named = tools.weights.get(protocol.lip_reader)
        path = Path(protocol.lip_reader) if named is None else named.path
        return kind(load_lip_reader(path, tools.device))

    return make


METRICS: Mapping[str, Entry] = {
    "lse": Entry(LipSync, make_lip_sync, lip_sync_weights),
    "silent_lse": Entry(SilentLse, make_silent_lse(SilentLse)),
    "source_lse": Entry(SourceLse, make_silent_lse(SourceLse)),
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
    "fvd": Entry(Fvd, lambda tools, protocol: Fvd(build_i3d(tools.tensors("i3d")).to(tools.device))),
    "lmd": Entry(LandmarkDistance, lambda tools, protocol: LandmarkDistance(protocol.lmd_face_px)),
    "silent_lips": Entry(SilentLips, make_silent_lips),
    "lip_loudness": Entry(LipLoudness, lambda tools, protocol: LipLoudness(VoiceActivity())),
    "identity": Entry(Identity, make_identity),
    "sharpness": Entry(Sharpness, lambda tools, protocol: Sharpness()),
    "cpbd_original": Entry(Cpbd, lambda tools, protocol: Cpbd()),
    "niqe": Entry(Niqe, lambda tools, protocol: Niqe.from_file(tools.weights["niqe"].path)),
    **{f"pyiqa:{name}": pyiqa_entry(name) for name in PYIQA_NETWORKS},
    "stability": Entry(Stability, lambda tools, protocol: Stability()),
    "avs_u": Entry(AvsUnpaired, make_avs(AvsUnpaired), avhubert_weights),
    "avs": Entry(AvsPaired, make_avs(AvsPaired), avhubert_weights),
    "wer": Entry(WordErrors, make_lip_reading(WordErrors), lip_reader_weights),
    "lipscore": Entry(LipScore, make_lip_reading(LipScore), lip_reader_weights),
}


@dataclass(frozen=True)
class MetricChoice:
    """Metrics to run, in the registry's order; the weights they need; and those that cannot run."""

    metrics: tuple[str, ...]
    weights: tuple[WeightFile, ...]
    not_computed: tuple[NotComputed, ...]


def choose_metrics(
    protocol: Protocol,
    wanted: Sequence[str] | None = None,
    *,
    has_references: bool = True,
    allow_unverified: bool = False,
    entries: Mapping[str, Entry] = METRICS,
) -> MetricChoice:
    """The metrics of a protocol, or those of them that are wanted.

    Raises ConfigError for a name that no metric has.
    """
    names = protocol.metrics if wanted is None else tuple(dict.fromkeys(wanted))
    for name in (*protocol.metrics, *protocol.on_request, *names):
        if name not in entries:
            close = get_close_matches(name, entries, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(entries)}"
            raise ConfigError(f"no metric {name!r}; {hint}")
    chosen: list[str] = []
    files: dict[str, WeightFile] = {}
    not_computed = []
    for name in sorted(names, key=list(entries).index):
        reason = _why_not(name, entries[name], protocol, has_references)
        if reason is None:
            try:
                needed = entries[name].weights(protocol)
                files |= {file: require(file, allow_unverified=allow_unverified) for file in needed}
                chosen.append(name)
            except WeightsError as error:
                reason = ("no-weights", str(error))
        if reason is not None:
            not_computed.append(NotComputed(name, *reason))
    return MetricChoice(tuple(chosen), tuple(files.values()), tuple(not_computed))


def _why_not(name: str, entry: Entry, protocol: Protocol, has_references: bool) -> tuple[str, str] | None:
    suits = entry.origin and not (entry.metric.needs_reference and protocol.reference == "picture")
    if name not in (*protocol.metrics, *protocol.on_request) and not suits:
        return "not-in-protocol", f"protocol {protocol.name} ({protocol.about}) does not have it"
    if entry.metric.needs_reference and not has_references:
        return "no-reference", "it compares with references; give --reference DIR, --data STORE or a --list"
    return None
