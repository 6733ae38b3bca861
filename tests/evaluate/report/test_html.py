from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from syncdiff.evaluate.metrics.base import face_lost
from syncdiff.evaluate.records import MetricInfo, Score
from syncdiff.evaluate.report.html import MOST_ROWS, distinct_columns, link_to
from syncdiff.evaluate.report.tables import make_results
from syncdiff.evaluate.report.write import write_report

from .synthetic_evaluation import synthetic


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


def test_lost_faces_are_drawn_once_unless_metrics_count_them_differently() -> None:
    lost = {"lmd": 20.0, "csim": 20.0, "sharpness": 30.0}
    evaluation = replace(
        synthetic(methods=("ours",)),
        metrics=tuple(MetricInfo(m, 1, (face_lost(m),), True, True, False, (), {}) for m in lost),
        scores=tuple(Score("ours", "spk/000", m, {f"{m}_face_lost": share}) for m, share in lost.items()),
        pooled=(),
    )
    results = make_results(evaluation)
    assert len(results.clip_columns) == 3
    drawn = [column.value.name for column in distinct_columns(evaluation, results)]
    assert drawn == ["lmd_face_lost", "sharpness_face_lost"]
