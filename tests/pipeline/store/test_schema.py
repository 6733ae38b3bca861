"""The columns are documented where people look for them, exactly as they are."""

from __future__ import annotations

from pathlib import Path

from syncdiff.pipeline.store.schema import CLIP_COLUMNS, REJECT_COLUMNS, Column

README = Path(__file__).resolve().parents[3] / "pipeline" / "README.md"


def line(column: Column) -> str:
    kind = str(column.type).replace("element: ", "").replace("item: ", "").replace("fixed_size_list", "list")
    null = ", may be null" if column.nullable else ""
    return f"| `{column.name}` | `{kind}`{null} | {column.unit} | {column.meaning} |"


def test_every_column_stands_in_the_readme() -> None:
    text = README.read_text(encoding="utf-8")
    missing = [line(c) for c in (*CLIP_COLUMNS, *REJECT_COLUMNS) if line(c) not in text]
    assert not missing, "write into pipeline/README.md:\n" + "\n".join(missing)
