"""The sample data set, prepared, for the benchmarks of the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFIG = """\
face_size_px: 128
mouth_rois: false
mask: {kind: landmarks}
"""


def prepared_sample(folder: Path, train_clips: int) -> tuple[Path, Path]:
    """(raw data set, prepared data set) below `folder`, made as users make them unless they are there.

    Masks follow the jaw: with 1,600 frames to learn from there is none to spare for what is behind a person.
    """
    from syncdiff.pipeline.sample.dataset import make_sample

    folder.mkdir(parents=True, exist_ok=True)
    raw, store = folder / "raw", folder / "store"
    make_sample(raw, train_clips=train_clips)
    if not (store / "dataset.json").is_file():
        (folder / "prep.yaml").write_text(CONFIG)
        prep = Path(sys.executable).with_name("syncdiff-prep")
        command = [prep, "lrs2", raw, "--out", store, "--config", folder / "prep.yaml"]
        subprocess.run([str(part) for part in command], check=True)
    return raw, store
