"""Escaping is reversible and gives UTF-8; ids are unique whatever the names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from syncdiff.pipeline.datasets.clip_ids import escape_for_id, escape_path, unescape_path, unique_ids

file_names = st.binary(min_size=1, max_size=12).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


@given(file_names)
def test_escaping_is_reversible(name: str) -> None:
    for escape in (escape_path, escape_for_id):
        escaped = escape(name)
        escaped.encode("utf-8")
        assert unescape_path(escaped) == name
    assert not set("#@\n") & set(escape_for_id(name))


@given(st.lists(st.text("ab./%", min_size=1, max_size=5), unique=True, max_size=30))
def test_ids_are_unique(names: list[str]) -> None:
    ids = unique_ids(["x/train"] * len(names), [name.rpartition("/")[2] for name in names], names)
    assert len(set(ids)) == len(ids)


def test_ordinary_names_stay_as_they_are() -> None:
    assert escape_path("a b/ü.mp4") == "a b/ü.mp4"
    assert unique_ids(["p"], ["a.b/c.mp4"], ["x"]) == ["p/a.b/c"]
