"""What programs read: metrics.json with all that is known, per_clip.parquet and .csv with a row a clip."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO, StringIO
from math import isfinite
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from syncdiff.evaluate.bootstrap import LEVEL, RESAMPLES, SEED, Interval
from syncdiff.evaluate.records import Evaluation
from syncdiff.evaluate.report.published import PublishedTable
from syncdiff.evaluate.report.tables import MetricTable, ReportTables
from syncdiff.pipeline.datasets.clip_ids import escape_path

_TEXTS = ("method", "clip", "status", "generated", "reference", "sound")
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
        "weights": [asdict(file) for file in evaluation.weights],
        "bootstrap": {"resamples": RESAMPLES, "level": LEVEL, "seed": SEED, "unit": evaluation.unit},
        "methods": evaluation.methods,
        "baseline": results.baseline,
        "metrics": [asdict(metric) for metric in evaluation.metrics],
        "results": [_block(block) for block in results.blocks],
        "differences": [
            {
                "method": d.method,
                "value": d.column.key,
                "verdict": d.verdict,
                "p": d.p,
                **_interval(d.interval),
            }
            for d in results.differences
        ],
        "published": None if published is None else asdict(published),
        "not_computed": [asdict(metric) for metric in evaluation.not_computed],
        "failures": [asdict(failure) for failure in evaluation.failures],
        "forms": [{**asdict(m), "frames": m.frames} for m in evaluation.mismatches if m.differs],
        "unmatched": [asdict(file) for file in evaluation.unmatched],
        "problems": [asdict(pooled) for pooled in evaluation.pooled if pooled.problem],
        "notes": evaluation.notes,
    }
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, sort_keys=False, allow_nan=False)
    return (text + "\n").encode("utf-8")


def _block(block: MetricTable) -> dict[str, Any]:
    values: dict[str, dict[str, Any]] = {}
    for column in block.columns:
        values[column.key] = {}
        for method in block.methods:
            cell = block.cells[method, column.key]
            intervals = {"shared": _interval(cell.shared), "own": _interval(cell.own)}
            values[column.key][method] = intervals | {
                "coverage": asdict(cell.coverage),
                "face_lost_percent": cell.face_lost,
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
        return {"mean": None, "low": None, "high": None, "clips": 0, "units": 0}
    return {name: _finite(getattr(interval, name)) for name in ("mean", "low", "high", "clips", "units")}


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


def clip_schema(results: ReportTables) -> pa.Schema:
    """Columns of the clips' table: texts, frame counts, one float64 column a value, and what went wrong."""
    texts, problems = dict.fromkeys(_TEXTS, pa.string()), {"problems": pa.string()}
    lengths = {**dict.fromkeys(_LENGTHS, pa.int64()), "flagged": pa.bool_()}
    values = {column.key: pa.float64() for column in results.clip_columns}
    return pa.schema({**texts, **lengths, **values, **problems})


def clip_rows(evaluation: Evaluation, results: ReportTables) -> list[dict[str, Any]]:
    """Every clip that a method was to have, by method and name: values by the columns of `clip_schema`.

    What a clip lacks has no entry. status: "generated", or "missing" where no video was made for it.
    """
    mismatches = {(m.method, m.clip): m for m in evaluation.mismatches}
    problems: dict[tuple[str, str], list[str]] = {}
    for f in evaluation.failures:
        sentence = f"{f.metric}: {f.stage}/{f.reason}: {f.detail}"
        problems.setdefault((f.method, f.clip), []).append(sentence)
    numbers = {(c.key, m): c.of(evaluation, m) for c in results.clip_columns for m in evaluation.methods}
    rows: list[dict[str, Any]] = []
    for case in evaluation.cases:
        row: dict[str, Any] = {"method": case.method, "clip": case.clip, "status": "generated"}
        row |= {"generated": str(case.generated), "sound": str(case.sound)}
        row |= {"reference": str(case.reference)} if case.reference else {}
        mismatch = mismatches.get((case.method, case.clip))
        if mismatch is not None:
            row |= {name: getattr(mismatch, name) for name in (*_LENGTHS, "flagged")}
        for column in results.clip_columns:
            number = numbers[column.key, case.method].get(case.clip)
            row |= {} if number is None else {column.key: number}
        rows.append(row | {"problems": "; ".join(problems.get((case.method, case.clip), ()))})
    rows += [
        {"method": file.method, "clip": file.name, "status": "missing", "problems": file.reason}
        for file in evaluation.unmatched
        if file.side != "generated" and file.method is not None
    ]
    return sorted(rows, key=lambda row: (evaluation.methods.index(row["method"]), row["clip"]))


def per_clip_parquet(evaluation: Evaluation, results: ReportTables) -> bytes:
    """The clips' table as Parquet."""
    rows = clip_rows(evaluation, results)
    valid = [{k: _text(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
    sink = BytesIO()
    pq.write_table(pa.Table.from_pylist(valid, clip_schema(results)), sink, compression="zstd")
    return sink.getvalue()


def per_clip_csv(evaluation: Evaluation, results: ReportTables) -> bytes:
    """The same rows as CSV. A text that a spreadsheet would run as a formula has an apostrophe before it."""
    out = StringIO()
    writer = csv.DictWriter(out, clip_schema(results).names, lineterminator="\n")
    writer.writeheader()
    for row in clip_rows(evaluation, results):
        writer.writerow({k: harmless(v) if isinstance(v, str) and v else v for k, v in row.items()})
    return out.getvalue().encode("utf-8")


def harmless(text: str) -> str:
    """Text that no spreadsheet runs as a formula (OWASP, "CSV Injection")."""
    text = _text(text)
    return f"'{text}" if text.startswith(_FORMULA) or text[:1].isspace() else text
