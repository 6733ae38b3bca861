"""Published figures beside one's own: which may stand there, and why others may not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from syncdiff.evaluate.published import Comparison
from syncdiff.evaluate.records import Evaluation
from syncdiff.evaluate.tables import Results, clips_text

_TITLES = {
    "lse_d": "LSE-D ↓",
    "lse_c": "LSE-C ↑",
    "psnr": "PSNR ↑",
    "ssim": "SSIM ↑",
    "fid": "FID ↓",
    "lmd": "LMD ↓",
}
WITHHELD = "withheld"


@dataclass(frozen=True)
class Line:
    """A method of one's own or a published one. cells: value name -> text; a value it lacks has no cell."""

    name: str
    source: str
    ours: bool
    cells: Mapping[str, str]


@dataclass(frozen=True)
class PublishedTable:
    """Lines under the same heads. notes: each withheld figure with its reason, and what else must be said."""

    dataset: str
    keys: tuple[str, ...]
    heads: Mapping[str, str]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def published_table(
    evaluation: Evaluation, results: Results, published: Sequence[Comparison]
) -> PublishedTable | None:
    """Own means over all clips of each method, and published rows; None where there are none."""
    if not published:
        return None
    keys = tuple(dict.fromkeys(key for one in published for key in one.row.values))
    columns = {column.key: column for column in results.columns}
    heads = {key: columns[key].head if key in columns else _TITLES.get(key, key) for key in keys}
    lines = []
    for method in evaluation.methods:
        own = {
            column.key: (column, block.cells[method, column.key].own)
            for block in results.blocks
            for column in block.columns
            if column.key in keys
        }
        cells = {key: column.text(one.mean) for key, (column, one) in own.items() if one is not None}
        counts = sorted({one.clips for _, one in own.values() if one is not None})
        over = (
            clips_text(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]} clips" if counts else ""
        )
        lines.append(Line(method, f"yours, {over}" if over else "yours", True, cells))
    for one in published:
        cells = {key: f"{one.values[key]:g}" if key in one.values else WITHHELD for key in one.row.values}
        lines.append(Line(one.row.method, one.row.source, False, cells))
    notes = tuple(_notes(evaluation, keys, heads, published))
    return PublishedTable(published[0].row.dataset, keys, heads, tuple(lines), notes)


def _notes(
    evaluation: Evaluation, keys: Sequence[str], heads: Mapping[str, str], published: Sequence[Comparison]
) -> list[str]:
    name, lse = evaluation.protocol.get("name"), evaluation.protocol.get("lse")
    notes = [
        f"Yours: protocol {name}, LSE {lse}, mean over all clips that each method has. Published figures are "
        "over the whole test set; yours can be compared with them only if your clips are that set."
    ]
    for one in published:
        reasons: dict[str, list[str]] = {}
        for key, reason in one.withheld.items():
            reasons.setdefault(reason, []).append(heads[key].split(" ")[0])
        for reason, titles in reasons.items():
            notes.append(f"{one.row.method} ({one.row.source}): {', '.join(titles)} withheld: {reason}.")
    metrics = {metric.name for metric in evaluation.metrics if any(v.name in keys for v in metric.values)}
    unverified = sorted({name for metric in metrics for name in evaluation.unverified(metric)})
    if unverified:
        notes.append(f"UNVERIFIED WEIGHTS in your figures: {', '.join(unverified)}.")
    return notes
