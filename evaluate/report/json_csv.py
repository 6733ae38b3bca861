"""What programs read: metrics.json with all that is known, per_clip.parquet and .csv with a row a clip."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO, StringIO
from math import isfinite
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from syncdiff.evaluate.bootstrap import LEVEL, RESAMPLES, SEED, Interval
from syncdiff.evaluate.records import Evaluation, Failure, FormatMismatch
from syncdiff.evaluate.report.published import PublishedTable
from syncdiff.evaluate.report.tables import ReportTables
from syncdiff.pipeline.datasets.clip_ids import escape_path

_TEXT = ("method", "clip", "status", "generated", "reference", "sound")
_LENGTHS = ("generated_frames", "reference_frames")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "|", "%", "'", '"')


def metrics_json(evaluation: Evaluation, results: ReportTables, published: PublishedTable | None) -> bytes:
    """All settings, versions, weights and figures, and what has none; the same evaluation, the same bytes.

    Means over the clips that all methods have are under `shared`, those over a method's own under `own`;
    an interval that cannot be given is null. Names that are not valid UTF-8 are percent-escaped.
    """
    content = {
        "format": 1,
        "protocol": evaluation.protocol,
        "settings": evaluation.settings,
        "versions": evaluation.versions,
        "weights": [asdict(one) for one in evaluation.weights],
        "bootstrap": {"resamples": RESAMPLES, "level": LEVEL, "seed": SEED, "unit": "clip"},
        "methods": evaluation.methods,
        "baseline": results.baseline,
        "metrics": [asdict(one) for one in evaluation.metrics],
        "results": [_block(block) for block in results.blocks],
        "differences": [
            {"method": d.method, "value": d.column.key, "verdict": d.verdict, **_interval(d.interval)}
            for d in results.differences
        ],
        "published": None if published is None else asdict(published),
        "not_computed": [asdict(one) for one in evaluation.not_computed],
        "failures": [asdict(one) for one in evaluation.failures],
        "forms": [{**asdict(one), "frames": one.frames} for one in evaluation.mismatches if one.differs],
        "unmatched": [asdict(one) for one in evaluation.unmatched],
        "problems": [asdict(one) for one in evaluation.pooled if one.problem],
        "notes": evaluation.notes,
    }
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, sort_keys=False, allow_nan=False)
    return (text + "\n").encode("utf-8")


def _block(block: Any) -> dict[str, Any]:
    values = {}
    for column in block.columns:
        values[column.key] = {
            method: {
                "shared": _interval(cell.shared),
                "own": _interval(cell.own),
                "coverage": asdict(cell.coverage),
            }
            for method in block.methods
            for cell in [block.cells[method, column.key]]
        }
    return {
        "metrics": [metric.name for metric in block.metrics],
        "compared_methods": block.compared,
        "shared_clips": block.clips,
        "notes": block.notes,
        "values": values,
        "best": block.best,
    }


def _interval(interval: Interval | None) -> dict[str, Any]:
    if interval is None:
        return {"mean": None, "low": None, "high": None, "clips": 0}
    return {name: _finite(getattr(interval, name)) for name in ("mean", "low", "high", "clips")}


def _finite(number: float) -> float | None:
    return number if isfinite(number) else None


def _plain(value: Any) -> Any:
    """Only what JSON has; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {escape_path(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, float):
        return _finite(value)
    return value if isinstance(value, int) else _text(str(value))


def _text(text: str) -> str:
    """Valid UTF-8; only what is not is changed."""
    return escape_path(text) if any("\ud800" <= character <= "\udfff" for character in text) else text


@dataclass(frozen=True)
class ClipRow:
    """A clip of a method. status: "generated", or "missing" where no video was made for it."""

    text: Mapping[str, str | None]
    mismatch: FormatMismatch | None
    numbers: Mapping[str, float]
    problems: str


def clip_rows(evaluation: Evaluation, results: ReportTables) -> list[ClipRow]:
    """Every clip that a method was to have, by method and name."""
    columns = [column for column in results.columns if column.metric.per_clip and not column.magnitude]
    mismatches = {(one.method, one.clip): one for one in evaluation.mismatches}
    failures: dict[tuple[str, str], list[Failure]] = {}
    for failure in evaluation.failures:
        failures.setdefault((failure.method, failure.clip), []).append(failure)
    numbers = {(c.key, m): c.of(evaluation, m) for c in columns for m in evaluation.methods}
    rows = []
    for case in evaluation.cases:
        key = (case.method, case.clip)
        text = {
            "method": case.method,
            "clip": case.clip,
            "status": "generated",
            "generated": str(case.generated),
            "reference": str(case.reference) if case.reference else None,
            "sound": str(case.sound),
        }
        found = {c.key: n for c in columns if (n := numbers[c.key, case.method].get(case.clip)) is not None}
        problems = "; ".join(f"{f.metric}: {f.stage}/{f.reason}: {f.detail}" for f in failures.get(key, ()))
        rows.append(ClipRow(text, mismatches.get(key), found, problems))
    for one in evaluation.unmatched:
        if one.side != "generated" and one.method is not None:
            text = {"method": one.method, "clip": one.name, "status": "missing"}
            rows.append(ClipRow(text, None, {}, one.reason))
    return sorted(
        rows, key=lambda row: (evaluation.methods.index(str(row.text["method"])), str(row.text["clip"]))
    )


def per_clip_parquet(evaluation: Evaluation, results: ReportTables) -> bytes:
    """The rows as Parquet: texts, frame counts, one float64 column a value, and what went wrong."""
    rows = clip_rows(evaluation, results)
    keys = [column.key for column in results.columns if column.metric.per_clip and not column.magnitude]
    columns: dict[str, pa.Array] = {
        name: pa.array([_known(row.text.get(name)) for row in rows], pa.string()) for name in _TEXT
    }
    for name in _LENGTHS:
        columns[name] = pa.array([getattr(row.mismatch, name, None) for row in rows], pa.int64())
    columns["flagged"] = pa.array([getattr(row.mismatch, "flagged", None) for row in rows], pa.bool_())
    for key in keys:
        columns[key] = pa.array([row.numbers.get(key) for row in rows], pa.float64())
    columns["problems"] = pa.array([_known(row.problems) for row in rows], pa.string())
    sink = BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()


def _known(text: str | None) -> str | None:
    return None if text is None else _text(text)


def per_clip_csv(evaluation: Evaluation, results: ReportTables) -> bytes:
    """The same rows as CSV. A text that a spreadsheet would run as a formula has an apostrophe before it."""
    keys = [column.key for column in results.columns if column.metric.per_clip and not column.magnitude]
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_TEXT, *_LENGTHS, "flagged", *keys, "problems"])
    for row in clip_rows(evaluation, results):
        lengths = [getattr(row.mismatch, name, "") for name in (*_LENGTHS, "flagged")]
        writer.writerow(
            [
                *(harmless(row.text.get(name) or "") for name in _TEXT),
                *lengths,
                *(repr(row.numbers[key]) if key in row.numbers else "" for key in keys),
                harmless(row.problems),
            ]
        )
    return out.getvalue().encode("utf-8")


def harmless(text: str) -> str:
    """Text that no spreadsheet runs as a formula (OWASP, "CSV Injection")."""
    text = _text(text)
    return f"'{text}" if text.startswith(_FORMULA) or text[:1].isspace() else text
