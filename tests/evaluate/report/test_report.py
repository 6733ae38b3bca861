"""The report: right numbers over the right clips, nothing hidden, and safe whatever files are called."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len
from rich.console import Console

from syncdiff.evaluate.bootstrap import bootstrap_mean
from syncdiff.evaluate.records import Evaluation, Failure, Pooled
from syncdiff.evaluate.report.clip_strips import choose_clips, ranking_column
from syncdiff.evaluate.report.html import MOST_ROWS, link_to
from syncdiff.evaluate.report.json_csv import harmless
from syncdiff.evaluate.report.markdown_latex import escape_latex, escape_markdown
from syncdiff.evaluate.report.published import WITHHELD, comparable, published_table
from syncdiff.evaluate.report.tables import make_results
from syncdiff.evaluate.report.write import print_report, write_report


def _load_synthetic() -> ModuleType:
    path = Path(__file__).with_name("synthetic_evaluation.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_MADE = _load_synthetic()
NASTY, synthetic = _MADE.NASTY, _MADE.synthetic


def printed(evaluation: Evaluation, width: int = 80, **options: object) -> str:
    out = StringIO()
    print_report(Console(file=out, width=width), evaluation, **options)  # type: ignore[arg-type]
    return out.getvalue()


def block_of(evaluation: Evaluation, key: str):  # type: ignore[no-untyped-def]
    return next(b for b in make_results(evaluation).blocks if any(c.key == key for c in b.columns))


def test_methods_are_compared_on_the_clips_that_all_have() -> None:
    block = block_of(synthetic(), "lse_d")
    assert block.clips == 7
    assert block.cells["ours", "lse_d"].shared.mean == pytest.approx(6.3)
    assert block.cells["ours", "lse_d"].own.mean == pytest.approx(6.35)
    assert block.cells["blurred", "lse_d"].shared.mean == pytest.approx(7.3)
    expected = bootstrap_mean(np.array([6 + 0.1 * k for k in range(7)]))
    assert block.cells["ours", "lse_d"].shared.low == expected.low
    assert "over the 7 clips that all 2 methods have." in block.notes[-2]


def test_coverage_counts_failed_and_missing_clips() -> None:
    coverage = block_of(synthetic(), "lse_d").coverage("blurred")
    assert (coverage.expected, coverage.scored, coverage.failed, coverage.missing) == (9, 7, 1, 1)


def test_values_with_other_coverage_have_their_own_table() -> None:
    evaluation = synthetic()
    assert block_of(evaluation, "psnr").clips == 8
    assert block_of(evaluation, "psnr_mouth").clips == 7


def test_method_without_scores_does_not_empty_the_comparison() -> None:
    evaluation = synthetic(("ours", "blurred", "broken"))
    evaluation = replace(evaluation, scores=tuple(s for s in evaluation.scores if s.method != "broken"))
    block = block_of(evaluation, "lse_d")
    assert block.clips == 7
    assert block.compared == ("ours", "blurred")
    assert any("left out of the comparison: broken" in note for note in block.notes)


def test_offsets_of_opposite_sign_do_not_cancel_out() -> None:
    block = block_of(synthetic(("ours",)), "sync_offset_abs")
    sizes = [k % 3 for k in range(8)]
    assert block.cells["ours", "sync_offset_abs"].shared.mean == pytest.approx(np.mean(sizes))


def test_best_is_by_direction() -> None:
    evaluation = synthetic()
    assert block_of(evaluation, "lse_c").best == {"lse_d": "ours", "lse_c": "ours"}


def test_set_metric_has_its_pooled_value_and_no_interval() -> None:
    block = block_of(synthetic(), "fid")
    cell = block.cells["blurred", "fid"]
    assert cell.shared.mean == 5.5
    assert np.isnan(cell.shared.low)
    assert any("region face, resize px 299" in note for note in block.notes)


def test_pool_other_than_the_mean_gets_no_interval_of_the_mean() -> None:
    evaluation = synthetic(("ours",))
    clips = tuple(sorted(evaluation.clip_values("ours", "psnr")))
    evaluation = replace(evaluation, pooled=(Pooled("ours", "psnr", "shared", clips, {"psnr": 40.0}),))
    cell = block_of(evaluation, "psnr").cells["ours", "psnr"]
    assert cell.shared.mean == 40.0
    assert np.isnan(cell.shared.low)


def test_intervals_stand_for_all_methods_of_a_column_or_for_none() -> None:
    evaluation = synthetic()
    clips = tuple(sorted(evaluation.clip_values("ours", "psnr")))
    evaluation = replace(evaluation, pooled=(Pooled("ours", "psnr", "shared", clips, {"psnr": 40.0}),))
    cells = block_of(evaluation, "psnr").cells
    assert np.isnan([cells[method, "psnr"].shared.low for method in evaluation.methods]).all()


def test_differences_are_paired_and_judged_by_direction() -> None:
    results = make_results(synthetic())
    found = {one.column.key: one for one in results.differences}
    assert found["lse_d"].interval.mean == pytest.approx(1.0)
    assert (found["lse_d"].verdict, found["lse_c"].verdict, found["psnr"].verdict) == ("worse",) * 3
    assert found["sync_offset"].verdict == ""
    turned = {d.column.key: d for d in make_results(synthetic(), "blurred").differences}
    assert turned["lse_d"].verdict == "better"
    with pytest.raises(ValueError, match="no method 'x'"):
        make_results(synthetic(), "x")


def test_few_clips_bear_no_verdict() -> None:
    assert {one.verdict for one in make_results(synthetic(clips=5)).differences} == {""}


@pytest.mark.parametrize("width", [80, 60, 120])
def test_terminal_fits_its_width_and_says_everything(width: int) -> None:
    text = printed(synthetic(), width)
    assert max(map(cell_len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for wanted in (
        "reconstruction", "wav2lip-lrs", "UNVERIFIED WEIGHTS: syncnet", "no-weights", "syncdiff-prep weights",
        "no-sound", "spk/999", "there is no reference", "40 frames, 50 in the reference",
        "A note for readers.",
    ):  # fmt: skip
        assert wanted in flat, wanted


def test_long_hostile_names_do_not_break_the_terminal() -> None:
    text = printed(synthetic((NASTY * 3, "[bold]b[/]")))
    assert max(map(cell_len, text.encode("utf-8", "replace").decode().splitlines())) <= 80
    assert "[bold]b[/]" in text
    assert "\u202e" not in text


def test_unexpected_errors_come_first() -> None:
    evaluation = synthetic()
    odd = Failure("ours", "spk/000", "psnr", "psnr", "ZeroDivisionError", "division by zero", unexpected=True)
    text = printed(replace(evaluation, failures=(*evaluation.failures, odd)))
    assert text.index("UNEXPECTED") < text.index("no-sound")


def test_published_rows_beside_yours_only_where_protocols_match() -> None:
    evaluation = synthetic()
    table = published_table(
        evaluation, make_results(evaluation), comparable("lrs2", "reconstruction", "wav2lip-lrs")
    )
    assert table is not None
    lines = {line.name: line for line in table.lines}
    assert lines["ours"].cells["lse_d"] == "6.350"
    assert lines["TalkLip"].cells["lse_d"] == "6.08"
    assert lines["Wav2Lip"].cells["lse_d"] == WITHHELD
    assert any("its protocol is unsynced, yours is reconstruction" in note for note in table.notes)
    assert any("UNVERIFIED" in note for note in table.notes)
    other = comparable("lrs2", "reconstruction", "syncnet-tracks")
    assert all("lse_d" not in one.values for one in other)
    assert "withheld" in printed(evaluation, published=other)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    evaluation = synthetic((NASTY, "b_&|lurred"), folder=out / "videos")
    write_report(evaluation, out, comparable("lrs2", "reconstruction", "wav2lip-lrs"), clips=2)
    return out


def test_files_are_whole_and_the_same_each_time(written: Path, tmp_path: Path) -> None:
    evaluation = synthetic()
    first = [path.read_bytes() for path in write_report(evaluation, tmp_path / "a", clips=0)]
    paths = write_report(evaluation, tmp_path / "b", clips=0)
    assert [path.read_bytes() for path in paths] == first
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [
        "metrics.json", "per_clip.csv", "per_clip.parquet", "report.html", "table.md", "table.tex",
    ]  # fmt: skip


def test_metrics_json_has_all_settings_weights_and_figures(tmp_path: Path) -> None:
    write_report(synthetic(), tmp_path, clips=0)
    content = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert content["protocol"]["lse"] == "wav2lip-lrs"
    assert content["weights"][0]["sha256"] == "0" * 64 and not content["weights"][0]["verified"]
    values = {key: one for block in content["results"] for key, one in block["values"].items()}
    assert values["lse_d"]["blurred"]["shared"]["clips"] == 7
    assert values["lse_d"]["blurred"]["coverage"] == {"expected": 9, "scored": 7, "failed": 1, "missing": 1}
    assert values["fid"]["ours"]["own"] == {"mean": 4.5, "low": None, "high": None, "clips": 8}
    assert content["failures"][0]["reason"] == "no-sound"
    assert content["not_computed"][0]["metric"] == "avs"
    assert len(content["unmatched"]) == 2


def test_every_expected_clip_is_a_row(tmp_path: Path) -> None:
    evaluation = synthetic()
    write_report(evaluation, tmp_path, clips=0)
    rows = pq.read_table(tmp_path / "per_clip.parquet").to_pylist()
    assert len(rows) == 17
    missing = [row for row in rows if row["status"] == "missing"]
    assert [row["clip"] for row in missing] == ["spk/999"]
    failed = next(row for row in rows if row["method"] == "blurred" and row["clip"] == "spk/007")
    assert failed["lse_d"] is None and "no-sound" in failed["problems"] and failed["psnr"] is not None
    with (tmp_path / "per_clip.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["lse_d"]) for line in lines if line["lse_d"]] == [
        r["lse_d"] for r in rows if r["lse_d"]
    ]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", "\n=1", " =1", "＝1"])
def test_no_cell_of_the_csv_is_a_formula(text: str) -> None:
    assert harmless(text).startswith("'")
    assert harmless("spk/001") == "spk/001"


def test_hostile_names_in_the_csv(written: Path) -> None:
    with (written / "per_clip.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            assert not any(cell.startswith(("=", "+", "@")) for cell in row)


def test_latex_and_markdown_escapes() -> None:
    assert escape_latex(r"a_b\c{%}$&#~^") == (
        r"a\_b\textbackslash{}c\{\%\}\$\&\#\textasciitilde{}\textasciicircum{}"
    )
    assert escape_markdown("a|b_c*<x>\n") == r"a\|b\_c\*\<x\>\\n"


def test_hostile_names_in_latex_and_markdown(written: Path) -> None:
    tex = (written / "table.tex").read_text("utf-8")
    assert tex.count(r"\begin{table}") == tex.count(r"\end{table}") >= 5
    assert r"\textless{}script\textgreater{}" in tex and "\\toprule" in tex
    body = re.sub(r"(?m)^%.*$", "", tex)
    assert not re.search(r"(?<!\\)[%#]", body)
    markdown = (written / "table.md").read_text("utf-8")
    assert not re.search(r"(?<!\\)<", markdown)
    widths = {}
    for line in markdown.splitlines():
        if line.startswith("|"):
            widths.setdefault(len(re.findall(r"(?<!\\)\|", line)), line)
    assert len(re.findall(r"(?m)^\|", markdown)) > 10 and min(widths) >= 4


class Page(HTMLParser):
    """Tags, addresses and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_page_is_self_contained_and_runs_only_its_own_script(written: Path) -> None:
    text = (written / "report.html").read_text("utf-8")
    page = Page(text)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 1 and [tag for tag, _ in page.tags].count("script") == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(
        a["content"]
        for t, a in page.tags
        if t == "meta" and "Content-Security" in (a.get("http-equiv") or "")
    )
    assert policy is not None and "default-src 'none'" in policy and f"'sha256-{digest}'" in policy
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert tag not in ("iframe", "object", "embed", "base", "form")
        address = attributes.get("src") or attributes.get("href") or ""
        assert address.startswith(("data:", "#", "./")) or not address, address
    assert "alert(1)</script>" not in text and "\u202e" not in text


def test_page_stays_small_with_many_clips(tmp_path: Path) -> None:
    write_report(synthetic(clips=900), tmp_path, clips=0)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert len(page) < 2_000_000
    assert f"The first {MOST_ROWS} of 1,801" in page


def test_links_are_relative_and_cannot_be_addresses_of_another_kind(tmp_path: Path) -> None:
    assert link_to(tmp_path / "v" / "a b#?.mp4", tmp_path / "out") == "./../v/a%20b%23%3F.mp4"
    assert link_to(tmp_path / "javascript:alert(1).mp4", tmp_path) == "./javascript%3Aalert%281%29.mp4"
    assert link_to(tmp_path / "\udcff'\".mp4", tmp_path) == "./%FF%27%22.mp4"


def test_worst_and_best_are_chosen_by_direction() -> None:
    evaluation = synthetic(("ours",))
    column = ranking_column(make_results(evaluation))
    assert column is not None and column.key == "lse_d"
    chosen = choose_clips(evaluation, column, 3)
    assert [(one.case.clip, one.worst) for one in chosen] == [
        ("spk/007", True),
        ("spk/006", True),
        ("spk/000", False),
    ]
    by_psnr = ranking_column(make_results(evaluation), "psnr")
    assert by_psnr is not None
    assert choose_clips(evaluation, by_psnr, 1)[0].case.clip == "spk/000"
    by_offset = ranking_column(make_results(evaluation), "sync_offset")
    assert by_offset is not None and by_offset.magnitude
    with pytest.raises(ValueError, match="no value 'fid'"):
        ranking_column(make_results(evaluation), "fid")


def test_no_clip_is_both_worst_and_best() -> None:
    evaluation = synthetic(("ours",), clips=2)
    column = ranking_column(make_results(evaluation))
    assert column is not None
    names = [one.case.clip for one in choose_clips(evaluation, column, 20)]
    assert len(names) == len(set(names)) == 2


def test_nothing_scored_is_still_a_report(tmp_path: Path) -> None:
    empty = replace(synthetic(), scores=(), pooled=(), failures=())
    assert "No clip could be scored." in printed(empty)
    assert "Nothing could be scored." in write_report(empty, tmp_path)[-1].read_text("utf-8")


def test_no_metrics_at_all(tmp_path: Path) -> None:
    empty = replace(synthetic(), scores=(), pooled=(), failures=(), metrics=(), cases=(), unmatched=())
    assert "Not computed" in printed(empty)
    write_report(empty, tmp_path)
