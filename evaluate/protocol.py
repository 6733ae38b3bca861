"""Named protocols: everything that must be the same for two figures to be comparable, in one file each.

A protocol is `configs/eval-<name>.yaml`, or a YAML file of one's own with the same keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from syncdiff.pipeline.config import (
    AUTO,
    STRICT,
    ConfigError,
    SettingsLayer,
    build,
    config_folder,
    flag_layers,
    read_layers,
    to_mapping,
)
from syncdiff.pipeline.faces.tracker import TrackerName
from syncdiff.pipeline.records import FPS

PREFIX = "eval-"
Region = Literal["frame", "face", "mouth"]


def _at_our_rate(fps: int) -> int:
    if fps != FPS:
        raise ValueError(f"clips are compared at {FPS} frames a second, got {fps}")
    return fps


def _each_once(metrics: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(metrics)) < len(metrics):
        raise ValueError(f"each once, got {', '.join(metrics)}")
    return metrics


@dataclass(frozen=True, config=STRICT)
class Protocol:
    """What fixes the figures.

    reference: what a reference is to its generated clip. "ground-truth": the same clip, to be reproduced
    frame by frame. "picture": the clip that the picture was taken from, while the sound came from elsewhere;
    it has no right mouth to compare with. lines: what a list's lines hold, "files" (`generated, reference[,
    sound]`) or "pairs" (`<sound clip> <picture clip>`, as Wav2Lip's lists do). sound: which file's sound is
    taken, unless a list names a third; "silence" for videos that were driven by silence, whose files' sound
    is not listened to. fps: frame rate at which clips are compared that cannot be compared picture by
    picture. pixels: "stored" takes pixels for square, as OpenCV and the papers' scripts do, "square" first
    widens pictures whose pixels are not. tracker: face tracking backend. metrics: those that make sense here.
    on_request: those that do, too, but are computed only when asked for by name. lse: how LSE is computed,
    never two ways in one report. lse_fps: rate to which clips are brought before it; `auto` takes their own.
    lse_min_track_frames: shortest track of `syncnet-tracks`. lpips_region, fid_region: what those look at.
    lpips_size_px: side to which LPIPS's region is scaled, 0 leaves it as it is. lmd_face_px: side of the face
    to which landmark distances are scaled. identity: "dlib", or the path of another face network, ONNX or
    TorchScript (see `syncdiff.evaluate.metrics.identity`). avhubert: the weights of AVS. lip_reader: a
    fine-tuned AV-HuBERT, by its name among the weights or as a file. aggregation: how a method's value is
    made from its clips, where its metric does not say otherwise.
    """

    name: str = ""
    about: str = ""
    reference: Literal["ground-truth", "picture"] = "ground-truth"
    lines: Literal["files", "pairs"] = "files"
    sound: Literal["generated", "reference", "silence"] = "generated"
    fps: Annotated[int, AfterValidator(_at_our_rate)] = FPS
    pixels: Literal["stored", "square"] = "stored"
    tracker: TrackerName = "dlib"
    metrics: Annotated[tuple[str, ...], AfterValidator(_each_once)] = ()
    on_request: Annotated[tuple[str, ...], AfterValidator(_each_once)] = ()
    lse: Literal["wav2lip-lrs", "syncnet-tracks"] = "wav2lip-lrs"
    lse_fps: Annotated[PositiveFloat | None, AUTO] = float(FPS)
    lse_min_track_frames: PositiveInt = 100
    lpips_region: Region = "face"
    lpips_size_px: NonNegativeInt = 224
    fid_region: Region = "face"
    lmd_face_px: PositiveInt = 256
    identity: str = "dlib"
    avhubert: str = "avhubert-base"
    lip_reader: str = "avhubert-base-vsr"
    aggregation: Literal["mean-over-clips"] = "mean-over-clips"

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        return to_mapping(self)


def protocol_names() -> list[str]:
    """Names of the protocols that come with the program."""
    return sorted(path.stem.removeprefix(PREFIX) for path in config_folder().glob(f"{PREFIX}*.yaml"))


def load_protocol(name: str, **overrides: Any) -> Protocol:
    """The protocol of this name, or of a YAML file at this path; overrides replace single settings.

    A file's protocol keeps `.yaml` in its name, so that it is never taken for one that papers share. Raises
    ConfigError for an unknown name or key, a wrong type, or a file that cannot be read.
    """
    if name in protocol_names():
        path = config_folder() / f"{PREFIX}{name}.yaml"
    elif name.endswith((".yaml", ".yml")):
        path = Path(name)
        name = path.name
    else:
        names = ", ".join(protocol_names())
        raise ConfigError(f"no protocol {name!r}; there are {names}, or give a .yaml file")
    named = SettingsLayer(str(path), {"name": name})
    return build(Protocol, [named, *read_layers(path), *flag_layers(overrides)])
