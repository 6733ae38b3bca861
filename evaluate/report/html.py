"""`report.html`: a file that opens from disk, loads nothing but the clips' videos from a folder beside it,
and runs no script but its table sorter."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from syncdiff.evaluate.records import Evaluation
from syncdiff.evaluate.report.clip_strips import (
    Pictures,
    choose_clips,
    draw_clips,
    ranking_column,
)
from syncdiff.evaluate.report.json_csv import clip_rows
from syncdiff.evaluate.report.published import WITHHELD, PublishedTable
from syncdiff.evaluate.report.tables import (
    VERDICT_RULE,
    ReportTables,
    ValueColumn,
    clips_text,
    lse_name,
)
from syncdiff.evaluate.report.warnings import (
    failure_groups,
    findings,
    flagged_mismatches,
    mismatch_text,
    unmatched_text,
)
from syncdiff.pipeline.faces.track import make_backend
from syncdiff.pipeline.records import ClipError
from syncdiff.pipeline.report.charts import MOST_DOTS, Figure, histogram, scatter, spread
from syncdiff.pipeline.report.render import render

PICTURE_BYTES = 8_000_000  # of all pictures in the page
CLIP_BYTES = 160_000  # of one clip's
MOST_ROWS = 400
OFFSETS = 15  # frames; histograms of offsets reach as far at least
LISTED = 200

# Sorts a table by the column whose head is clicked: by data-v where cells have it, else by text.
SORTER = Markup(
    """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[column];
        if (!("v" in cell.dataset)) return cell.textContent.trim();
        return cell.dataset.v === "" ? null : Number(cell.dataset.v);
      };
      const rows = [...body.rows].sort((first, second) => {
        const a = value(first), b = value(second);
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" ? a - b : a.localeCompare(b, undefined, {numeric: true});
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
}
"""
)


@dataclass(frozen=True)
class Shown:
    """A clip as pictures, with links to its files."""

    heading: str
    why: str
    worst: bool
    facts: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...]
    pictures: Pictures


def make_page(
    evaluation: Evaluation,
    results: ReportTables,
    published: PublishedTable | None,
    folder: Path,
    *,
    clips: int = 18,
    rank_by: str | None = None,
) -> str:
    """The page as it is to be written into `folder`, which its links to videos start from.

    clips: at most so many worst and best clips with pictures. rank_by: by which value. Raises ValueError for
    a `rank_by` that cannot rank.
    """
    rank = ranking_column(results, rank_by)
    rows, total = table_rows(evaluation, results, rank, folder)
    return render(
        "syncdiff.evaluate.report",
        "report.html.j2",
        title=f"{len(evaluation.methods)} method{'s' * (len(evaluation.methods) != 1)}, "
        f"{clips_text(len({case.clip for case in evaluation.cases}))}",
        evaluation=evaluation,
        results=results,
        published=published,
        rank=rank,
        findings=findings(evaluation),
        failures=failure_groups(evaluation),
        mismatches=[mismatch_text(mismatch) for mismatch in flagged_mismatches(evaluation)],
        unmatched=[unmatched_text(file) for file in evaluation.unmatched],
        spreads=spread_figures(evaluation, results),
        scatters=scatter_figures(evaluation, results),
        offsets=offset_figures(evaluation, results),
        shown=show_clips(evaluation, results, rank, clips, folder),
        columns=results.clip_columns,
        rows=rows,
        total_rows=total,
        settings=_settings(evaluation),
        verdict_rule=VERDICT_RULE,
        lse=lse_name(evaluation),
        listed=LISTED,
        withheld=WITHHELD,
        script=SORTER,
        script_hash=base64.b64encode(hashlib.sha256(SORTER.encode()).digest()).decode(),
    )


def link_to(target: Path, folder: Path) -> str:
    """Address of a file from a page in `folder`: relative, opens from disk, and has no character of markup,
    nor a colon, in it."""
    try:
        relative = os.path.relpath(target.absolute(), folder.absolute())
    except ValueError:  # on another drive there is no relative path
        return target.absolute().as_uri()
    return "./" + quote(os.fsencode(relative.replace(os.sep, "/")), safe="/")


def distinct_columns(evaluation: Evaluation, results: ReportTables) -> list[ValueColumn]:
    """Values worth a drawing: several metrics count the frames without a face, mostly to the same figures."""
    drawn: list[tuple[str, list[Mapping[str, float]]]] = []
    columns = []
    for column in results.clip_columns:
        drawing = column.head, [column.of(evaluation, method) for method in evaluation.methods]
        if drawing not in drawn:
            drawn.append(drawing)
            columns.append(column)
    return columns


def spread_figures(evaluation: Evaluation, results: ReportTables) -> list[Figure]:
    """How each value is spread over all clips of each method."""
    figures = []
    for column in distinct_columns(evaluation, results):
        values = {method: _array(column.of(evaluation, method)) for method in evaluation.methods}
        if any(map(len, values.values())):
            title, unit = column.value.title, column.value.unit
            chart = spread(
                values, label=f"{title} of each method", unit=f"{title}, {unit}" if unit else title
            )
            figures.append(Figure(column.head, chart))
    return figures


def scatter_figures(evaluation: Evaluation, results: ReportTables) -> list[tuple[str, list[Figure]]]:
    """Each method against the baseline, value by value, a dot for every clip that both have."""
    if results.baseline is None:
        return []
    groups, columns = [], distinct_columns(evaluation, results)
    for method in evaluation.methods:
        figures = []
        for column in columns if method != results.baseline else ():
            ours, theirs = column.of(evaluation, method), column.of(evaluation, results.baseline)
            both = sorted(ours.keys() & theirs.keys())
            if not both:
                continue
            y, x = (np.array([numbers[clip] for clip in both]) for numbers in (ours, theirs))
            caption = clips_text(len(both))
            caption = f"{MOST_DOTS} of {caption} drawn" if len(both) > MOST_DOTS else caption
            if column.directed:
                higher = column.value.better == "higher"
                wins, side = int((y > x if higher else y < x).sum()), "above" if higher else "below"
                caption += f"; better on {wins}, those {side} the line"
            label = f"{column.value.title}: {method} against {results.baseline}"
            chart = scatter(x, y, label=label, x_name=results.baseline, y_name=method)
            figures.append(Figure(column.head, chart, caption))
        if figures:
            groups.append((method, figures))
    return groups


def offset_figures(evaluation: Evaluation, results: ReportTables) -> list[Figure]:
    """Histograms of what should be 0 frames: offsets and lags, a chart for each method."""
    figures = []
    for column in results.columns:
        if column.value.better != "zero" or column.value.unit != "frames" or not column.metric.per_clip:
            continue
        for method in evaluation.methods:
            values = _array(column.of(evaluation, method))
            if not len(values):
                continue
            low = min(-OFFSETS, floor(values.min())) - 0.5
            high = max(OFFSETS, floor(values.max()) + 1) + 0.5
            edges = np.arange(low, high + 0.5)
            median = float(np.median(values))
            chart = histogram(
                edges.tolist(),
                np.histogram(values, edges)[0].tolist(),
                label=f"{column.value.title} of {method}",
                unit="frames of 40 ms",
                counted="clips",
                median=(median, column.text(median)),
                zero=True,
            )
            figures.append(Figure(f"{column.value.title}: {method}", chart, clips_text(len(values))))
    return figures


def _array(values: Mapping[str, float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([values[clip] for clip in sorted(values)], np.float64)


def show_clips(
    evaluation: Evaluation, results: ReportTables, rank: ValueColumn | None, most: int, folder: Path
) -> list[tuple[str, list[Shown]]]:
    """The worst and best clips with pictures, by method."""
    if rank is None or most < 1:
        return []
    chosen = choose_clips(evaluation, rank, most)
    budget = min(CLIP_BYTES, PICTURE_BYTES * 3 // 4 // max(len(chosen), 1))
    try:
        backend = make_backend(str(evaluation.protocol.get("tracker", "dlib")))
    except ClipError as error:
        return [(f"no pictures: {error.reason}: {error.detail}", [])]
    pictures = draw_clips([ranked.case for ranked in chosen], backend, budget, folder)
    shown: dict[str, list[Shown]] = {}
    for ranked, drawn in zip(chosen, pictures, strict=True):
        case = ranked.case
        facts = []
        for column in results.clip_columns:
            number = column.of(evaluation, case.method).get(case.clip)
            if number is not None:
                facts.append((column.value.title, f"{column.text(number)} {column.value.unit}".strip()))
        files = [("generated video", case.generated)]
        if case.reference is not None:
            files.append(("reference video", case.reference))
        if case.sound not in (case.generated, case.reference):
            files.append(("sound", case.sound))
        links = tuple((name, link_to(path, folder)) for name, path in files)
        ordinal = {1: "", 2: "second ", 3: "third ", 4: "fourth "}.get(ranked.rank, f"{ranked.rank}th ")
        end = f"{ordinal}{'worst' if ranked.worst else 'best'} of {ranked.of}"
        why = f"{rank.value.title} {rank.text(ranked.number)}: {end}"
        sheet = Shown(case.clip, why, ranked.worst, tuple(facts), links, drawn)
        shown.setdefault(case.method, []).append(sheet)
    return list(shown.items())


def table_rows(
    evaluation: Evaluation, results: ReportTables, rank: ValueColumn | None, folder: Path
) -> tuple[list[dict[str, Any]], int]:
    """Rows of the clip table, at most MOST_ROWS: those without a score first, then the worst; and how many
    there are in all. link: the address of the generated video, "" where there is none."""
    clips = clip_rows(evaluation, results)
    generated = {(case.method, case.clip): case.generated for case in evaluation.cases}

    def badness(row: Mapping[str, Any]) -> tuple[int, float]:
        number = None if rank is None else row.get(rank.key)
        if number is None or rank is None:
            return (0 if row["problems"] or rank is not None else 1), 0.0
        return 1, number if rank.value.better == "higher" else -number

    rows = []
    for row in sorted(clips, key=badness)[:MOST_ROWS]:
        there = row["status"] == "generated"
        rows.append(row | {"link": link_to(generated[row["method"], row["clip"]], folder) if there else ""})
    return rows, len(clips)


def _settings(evaluation: Evaluation) -> list[tuple[str, Mapping[str, Any]]]:
    """Everything chosen and installed, as groups of name -> value."""
    metrics = {}
    for metric in evaluation.metrics:
        settings = ", ".join(f"{key} {value}" for key, value in metric.settings.items())
        metrics[metric.name] = f"version {metric.version}; {settings or '–'}"
    weights = {
        file.name: f"{file.file}, sha256 {file.sha256}{'' if file.verified else ', UNVERIFIED'}"
        for file in evaluation.weights
    }
    groups = [
        ("Protocol", evaluation.protocol),
        ("Run", evaluation.settings),
        ("Metrics", metrics),
        ("Weights", weights),
        ("Versions", evaluation.versions),
    ]
    return [(name, pairs) for name, pairs in groups if pairs]
