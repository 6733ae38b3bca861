"""Settings of a preparation: a layout's defaults, over them the user's YAML file, over both the flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from syncdiff.pipeline.config import (
    AUTO,
    STRICT,
    ConfigError,
    build,
    config_folder,
    flag_layers,
    read_layers,
    to_mapping,
)
from syncdiff.pipeline.faces.align import AlignConfig
from syncdiff.pipeline.faces.mask import MaskConfig
from syncdiff.pipeline.faces.reference_frames import PoseConfig
from syncdiff.pipeline.faces.tracker import TrackConfig, TrackerName

FEATURES = ("logfbank", "mel")


def _known_features(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names) or not set(names) <= set(FEATURES):
        raise ValueError(f"choose from {', '.join(FEATURES)}, each once; got {list(names)}")
    return names


@dataclass(frozen=True, config=STRICT)
class PrepConfig:
    """How a data set is prepared.

    face_size_px: side of the face crops. jpeg_quality: of the stored crops. tracker: face tracking backend.
    all_faces: keep every face, not only the speaker's. max_clip_s: a longer track becomes several rows.
    features: computed with the clips, from `logfbank` and `mel`. mouth_rois: store the 96x96 grey mouth
    pictures that AV-HuBERT's visual input is cut from. clips_per_shard: None (`auto` in a file) lets the
    number of clips decide. gpus_per_worker: share of a GPU that a worker of a GPU tracker asks Ray for; it
    changes no result, so no data set records it. The rest are the settings of single stages.
    """

    face_size_px: Annotated[int, Field(ge=32, le=1024)] = 256
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 92
    tracker: TrackerName = "dlib"
    all_faces: bool = False
    max_clip_s: Annotated[float, Field(ge=1, le=600)] = 20.0
    features: Annotated[tuple[str, ...], AfterValidator(_known_features)] = FEATURES
    mouth_rois: bool = True
    clips_per_shard: Annotated[Annotated[int, Field(ge=1, le=100_000)] | None, AUTO] = None
    gpus_per_worker: Annotated[float, Field(ge=0, le=1, exclude=True)] = 0.0
    track: TrackConfig = field(default_factory=TrackConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    pose: PoseConfig = field(default_factory=PoseConfig)

    def to_dict(self) -> dict[str, Any]:
        """Everything that decides what the data set holds, as plain JSON values in a fixed order."""
        return {key: "auto" if value is None else value for key, value in to_mapping(self).items()}


def load_config(
    layout: str, path: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> PrepConfig:
    """Settings for a layout: `configs/<layout>.yaml`, over it the file at `path`, over that the overrides.

    Keys of overrides may be dotted (`track.min_face_px`). Raises ConfigError for an unknown key, a wrong
    type, a value out of range, or a file that cannot be read.
    """
    defaults = config_folder() / f"{layout}.yaml"
    if not defaults.is_file():
        raise ConfigError(f"there is no configs/{layout}.yaml")
    own = [] if path is None else read_layers(path)
    return build(PrepConfig, [*read_layers(defaults), *own, *flag_layers(overrides or {})])
