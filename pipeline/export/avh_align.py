"""AVH-Align's features: one .npz a clip and a CSV a split.

Facts from `avh_sup/datasets.py` and `av1m_metadata/` of bit-ml/AVH-Align (55401de).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from syncdiff.pipeline.export.base import (
    Content,
    ExportCounts,
    OnClip,
    export_clips,
    features_of,
    folder_name,
    write_split_lists,
)
from syncdiff.pipeline.store.read import ClipView, Dataset

# The array's name in the .npz: the modality of AV-HuBERT that gives it
ARRAYS = {"visual": "video", "audio": "audio", "multimodal": "both"}
REAL = 0  # their label; what was recorded, not made


def export_avh_align(
    dataset: Dataset, out: Path, layer: str = "final", on_clip: OnClip = lambda clip: None
) -> ExportCounts:
    """`<split>/<clip>.npz` with `visual`, `audio`, `multimodal` [T,D], and `<split>_labels.csv`.

    The CSV has `path,label,num_frames`; every clip is labelled real (0). The features are AV-HuBERT's of this
    `layer`: those of a modality that the data set does not hold are missing from the .npz. Raises ValueError
    where it holds none.
    """
    names = {
        array: f"avhubert-{modality}-{layer}"
        for array, modality in ARRAYS.items()
        if f"avhubert-{modality}-{layer}" in dataset.manifest["features"]
    }
    if not names:
        raise ValueError(
            f"{dataset.root} holds no AV-HuBERT features of layer {layer}: add them with "
            "`syncdiff-prep features avhubert --modality video` (then audio, both)"
        )

    def files_of(clip: ClipView) -> Mapping[Path, Content]:
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {array: features_of(clip, name) for array, name in names.items()}
        np.savez(buffer, **arrays)
        return {out / f"{folder_name(clip.clip_id)}.npz": buffer.getvalue()}

    counts, clips = export_clips(dataset, files_of, on_clip)
    write_split_lists(
        clips,
        lambda split: out / f"{split}_labels.csv",
        lambda clip: f"{folder_name(clip.clip_id).partition('/')[2]}.mp4,{REAL},{clip.num_frames}",
        # the loader looks for a clip in the folder of its split, which is the first part of the name
        split_of=lambda clip: folder_name(clip.clip_id).partition("/")[0],
        header="path,label,num_frames",
    )
    return counts
