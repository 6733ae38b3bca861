"""Named protocols: everything that must be the same for two figures to be comparable, in one file each.

A protocol is `configs/eval-<name>.yaml`, or a YAML file of one's own with the same keys.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from syncdiff.pipeline.config import ConfigError, apply_settings, parse_settings
from syncdiff.pipeline.records import FPS

PREFIX = "eval-"
Region = Literal["frame", "face", "mouth"]


@dataclass(frozen=True)
class Protocol:
    """What fixes the figures.

    reference: what a reference is to its generated clip. "ground-truth": the same clip, to be reproduced
    frame by frame. "picture": the clip that the picture was taken from, while the sound came from elsewhere;
    it has no right mouth to compare with. lines: what a list's lines hold, "files" (`generated, reference[,
    sound]`) or "pairs" (`<sound clip> <picture clip>`, as Wav2Lip's lists do). sound: which file's sound is
    taken, unless a list names a third. fps: frame rate at which everything is compared. tracker: face
    tracking backend. metrics: those that make sense here. lse: how LSE is computed, never two ways in one
    report. lse_fps: rate to which clips are brought before it; `auto` takes their own. lse_min_track_frames:
    shortest track of `syncnet-tracks`. lpips_region, fid_region: what those look at. lpips_size_px: side to
    which LPIPS's region is scaled, 0 leaves it as it is. lmd_face_px: side of the face to which landmark
    distances are scaled. identity: "dlib", or the path of another face network (see
    `syncdiff.evaluate.metrics.csim`). avhubert: the weights of AVS. aggregation: how a method's value is made
    from its clips, where its metric does not say otherwise.
    """

    name: str = ""
    about: str = ""
    reference: Literal["ground-truth", "picture"] = "ground-truth"
    lines: Literal["files", "pairs"] = "files"
    sound: Literal["generated", "reference"] = "generated"
    fps: int = FPS
    tracker: Literal["dlib", "face-alignment"] = "dlib"
    metrics: tuple[str, ...] = ()
    lse: Literal["wav2lip-lrs", "syncnet-tracks"] = "wav2lip-lrs"
    lse_fps: float | None = float(FPS)
    lse_min_track_frames: int = 100
    lpips_region: Region = "face"
    lpips_size_px: int = 224
    fid_region: Region = "face"
    lmd_face_px: int = 256
    identity: str = "dlib"
    avhubert: str = "avhubert-base"
    aggregation: Literal["mean-over-clips"] = "mean-over-clips"

    def __post_init__(self) -> None:
        if self.fps != FPS:
            raise ValueError(f"fps: clips are compared at {FPS} frames a second, got {self.fps}")
        if self.lse_min_track_frames < 1 or self.lmd_face_px < 1 or self.lpips_size_px < 0:
            raise ValueError("lse_min_track_frames, lmd_face_px: 1 or more; lpips_size_px: 0 or more")
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"metrics: each once, got {', '.join(self.metrics)}")

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def protocol_names() -> list[str]:
    """Names of the protocols that come with the program."""
    here = (entry.name for entry in files("syncdiff.configs").iterdir())
    return sorted(n.removeprefix(PREFIX).removesuffix(".yaml") for n in here if n.startswith(PREFIX))


def load_protocol(name: str, **overrides: Any) -> Protocol:
    """The protocol of this name, or of a YAML file at this path; overrides replace single settings.

    A file's protocol keeps `.yaml` in its name, so that it is never taken for one that papers share. Raises
    ConfigError for an unknown name or key, a wrong type, or a file that cannot be read.
    """
    resource = files("syncdiff.configs") / f"{PREFIX}{name}.yaml"
    if name in protocol_names():
        where, text = resource.name, resource.read_text("utf-8")
    elif name.endswith((".yaml", ".yml")):
        where, text = name, _read(Path(name))
        name = Path(name).name
    else:
        known = ", ".join(protocol_names())
        raise ConfigError(f"no protocol {name!r}; there are {known}, or give a .yaml file")
    protocol = apply_settings(Protocol(), {"name": name, **parse_settings(text, where)}, where)
    return apply_settings(protocol, overrides, "command line")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
