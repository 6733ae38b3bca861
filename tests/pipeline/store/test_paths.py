"""A data set from a stranger: its names become paths, so none may lead out of its folder or of --out."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncdiff.pipeline.datasets.clip_ids import escape_for_id, escape_path
from syncdiff.pipeline.export.plain import export_frames
from syncdiff.pipeline.export.wav2lip import export_wav2lip
from syncdiff.pipeline.store.paths import BAD_TEXT, StoreError, read_manifest
from syncdiff.pipeline.store.read import open_dataset

HOSTILE_NAMES = ("../../x", "..", ".hidden", "/tmp/x", "a/b", "a\\b", "", "a\nb", "x" * 300, 7, None)


@pytest.fixture
def store(prepared_sample: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(prepared_sample, tmp_path / "store"))


def change_manifest(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((root / "dataset.json").read_text())
    change(manifest)
    (root / "dataset.json").write_text(json.dumps(manifest))


def change_column(root: Path, name: str, value: str) -> None:
    """Write this value into every row of a column, as somebody might who hands on a data set."""
    for path in (root / "clips").iterdir():
        table = pq.read_table(path)
        values = pa.array([value] * len(table), table.schema.field(name).type)
        pq.write_table(
            table.set_column(table.schema.get_field_index(name), table.schema.field(name), values), path
        )


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("key", ["name", "split", "features"])
def test_names_that_are_no_plain_part_of_a_path_are_refused(store: Path, key: str, name: object) -> None:
    value = {name: {"file": "x"}} if key == "features" else name
    change_manifest(store, lambda manifest: manifest["shards"][0].update({key: value}))
    with pytest.raises(StoreError, match=r"dataset\.json: .* (cannot name a split|should be)"):
        read_manifest(store)


def test_files_lie_where_the_store_puts_them(store: Path) -> None:
    change_manifest(store, lambda m: m["shards"][0]["clips"].update(file="../secret.parquet"))
    with pytest.raises(StoreError, match=r"secret\.parquet"):
        open_dataset(store)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", "{}", '{"shards": 7}', '{"shards": [[]], "features": []}', "[" * 100_000]
)
def test_a_damaged_manifest_is_named(store: Path, content: str) -> None:
    (store / "dataset.json").write_text(content)
    with pytest.raises(StoreError, match=r"dataset\.json is (damaged|no manifest)"):
        open_dataset(store)


@pytest.mark.parametrize(
    "place", ["clips", "clips/train-00000.parquet", "features/mel", ".work/done", "report"]
)
def test_a_link_out_of_the_data_set_is_refused(store: Path, tmp_path: Path, place: str) -> None:
    path = store / place
    outside = tmp_path / "outside"
    if path.exists():
        path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(StoreError, match="leads out"):
        open_dataset(store)


def test_a_data_set_may_itself_be_reached_by_a_link(store: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store)
    assert len(open_dataset(tmp_path / "link")) == len(open_dataset(store))


@pytest.mark.parametrize(
    "clip_id", ["lrs2//tmp/x", "lrs2/../../x", "lrs2/train/../../../x", "/tmp/x", "a/%2E%2e/x"]
)
def test_an_id_that_leads_out_is_read_by_nobody(store: Path, tmp_path: Path, clip_id: str) -> None:
    change_column(store, "clip_id", clip_id)
    dataset = open_dataset(store)
    for read in (
        lambda: dataset[0].clip_id,
        lambda: dataset.table(["clip_id"]),
        lambda: export_frames(dataset, tmp_path / "a" / "out"),
    ):
        with pytest.raises(StoreError, match="leads out"):
            read()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("column", "value"), [("split", "../../x"), ("source", "../x"), ("source", "a%2F..%2F..%2Fx")]
)
def test_other_texts_that_become_paths_are_checked_too(
    store: Path, tmp_path: Path, column: str, value: str
) -> None:
    change_column(store, column, value)
    with pytest.raises(StoreError, match=f"{column} .* leads out"):
        open_dataset(store)[0].value(column)
    if column == "split":
        with pytest.raises(StoreError, match="leads out"):
            export_wav2lip(open_dataset(store), tmp_path / "out")


# A file name is any bytes but these two; Python shows those that are no UTF-8 as lone surrogates.
file_names = st.binary(min_size=1).filter(lambda name: not {0, ord("/")} & set(name)).map(os.fsdecode)


@given(st.lists(file_names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3))
def test_no_name_of_a_real_file_is_refused(parts: list[str]) -> None:
    path = "/".join(parts)
    assert not re.search(BAD_TEXT["source"], escape_path(path))
    assert not re.search(BAD_TEXT["clip_id"], f"folder/train/{escape_for_id(path)}")
