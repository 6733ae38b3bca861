"""Writes docs/store-format.md from the schema: `python docs/write_store_format.py`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from syncdiff.pipeline.store.schema import (
    CLIP_COLUMNS,
    REJECT_COLUMNS,
    SCHEMA_VERSION,
    Column,
    feature_schema,
)

INTRODUCTION = """# The store on disk

<!-- Written by docs/write_store_format.py from pipeline/store/schema.py; edit those. -->

A prepared data set is a folder of Parquet files that any reader of Parquet opens. Schema version {version}.

    dataset.json                              layout, configuration, versions, counts, hash of every file
    clips/<split>-00000.parquet               one row for each face track of at most `max_clip_s` seconds
    features/<extractor>/<split>-00000.parquet   the same rows in the same order
    features/<extractor>/extractor.json       what made them: all that their values depend on
    rejects.parquet                           one row for each input that gave no row
    report/index.html                         made by `syncdiff-prep inspect`
    .work/                                    completion records; they let the same command continue

Features lie beside the clips, so that an extractor is added without touching pictures, and a model that wants
features alone reads only those. `dataset.json` is written last: a folder without it is unfinished. The same
inputs, configuration and versions give the same bytes.

Pages carry checksums (CRC-32, part of the Parquet format): `open_dataset` verifies them and names a file that
is damaged; other readers may be told to. `syncdiff-prep verify DATA --repair` makes such files again from the
raw data set. A data set from elsewhere is not trusted: its names may not lead out of its folder.

## A row of `clips/`

Per-frame columns are lists of T entries, T = `num_frames`. Points are (x, y), x to the right, y down, the
centre of the first pixel at (0, 0). `landmarks_px`, `boxes_px` are in pixels of the source (upright, square
pixels); `crop_matrix` takes them to the crop: `crop = matrix[:, :2] @ source + matrix[:, 2]`.
"""

FEATURES = """
## A row of `features/<extractor>/`

Steps a second: in the shard's metadata (`syncdiff.rate_hz`), and in `extractor.json`. `values` is null where
the clip has no sound. Below for an extractor of width D.
"""


def row(name: str, kind: object, nullable: bool, unit: str, meaning: str) -> str:
    shown = str(kind).replace("element: ", "").replace("item: ", "").replace("fixed_size_list", "list")
    return f"| `{name}` | `{shown}`{', may be null' if nullable else ''} | {unit} | {meaning} |"


def table(columns: Iterable[Column]) -> list[str]:
    head = ["| column | type | unit | meaning |", "|---|---|---|---|"]
    return head + [row(c.name, c.type, c.nullable, c.unit, c.meaning) for c in columns]


def feature_table() -> list[str]:
    """Of a stand-in extractor of 8 values a step, its width written as D."""
    lines = ["| column | type | unit | meaning |", "|---|---|---|---|"]
    for field in feature_schema("name", 8, 25.0):
        about = {key.decode(): value.decode() for key, value in field.metadata.items()}
        kind, meaning = str(field.type).replace("[8]", "[D]"), about["description"].replace("8", "D")
        lines.append(row(field.name, kind, field.nullable, about["unit"], meaning))
    return lines


def store_format() -> str:
    """The whole page."""
    parts = [INTRODUCTION.format(version=SCHEMA_VERSION), *table(CLIP_COLUMNS), FEATURES, *feature_table()]
    parts += ["\n## A row of `rejects.parquet`\n", *table(REJECT_COLUMNS)]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("store-format.md").write_text(store_format(), encoding="utf-8")
