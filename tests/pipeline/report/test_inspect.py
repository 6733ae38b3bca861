"""The report: what a user must know is said, on a page that is safe, self-contained and always the same."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from syncdiff.pipeline.faces.align import crop_matrices
from syncdiff.pipeline.media.images import encode_jpeg, encode_mask
from syncdiff.pipeline.records import Reject
from syncdiff.pipeline.report import inspect as report
from syncdiff.pipeline.report.inspect import findings, print_summary, write_report
from syncdiff.pipeline.report.render import visible
from syncdiff.pipeline.report.summary import summarise
from syncdiff.pipeline.store.paths import StoreError
from syncdiff.pipeline.store.read import open_dataset

SIZE = 64
NASTY = "a'\"b<script>alert(1)</script>\n-é名\u202e.mp4"


def page_of(root: Path, **options: Any) -> str:
    return write_report(root, **options).read_text(encoding="utf-8")


class Checker(HTMLParser):
    """Collects tags, what they point to and text; notes tags that are not closed in order."""

    VOID = ("meta", "link", "img", "br", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.wrong: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "data", "action", "poster")
        ]
        self.wrong += [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    assert checker.wrong == []
    assert checker.open == []
    return checker


def test_findings_name_what_a_user_must_know(store: Path) -> None:
    text = "\n".join(findings(summarise(open_dataset(store))))
    for part in ("net", "untrained", "1 input was", "without sound: 1 of 14", "usable files: 1"):
        assert part in text


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(store: Path) -> None:
    html = page_of(store)
    page = checked(html)
    assert "script" not in page.tags
    assert all(a.startswith(("#", "data:")) for a in page.addresses)
    anchors = {a[1:] for a in page.addresses if a.startswith("#")}
    assert anchors <= set(re.findall(r'id="([^"]+)"', html))
    assert not re.search(r"https?:|url\(|@import", re.sub(r"data:image/jpeg;base64,[^\"]+", "", html))
    assert page.tags.count("article") == 14
    assert page.tags.count("svg") >= 12 + 14
    assert [p.name for p in (store / "report").iterdir()] == ["index.html"]


def test_pictures_of_the_page_can_be_decoded(store: Path) -> None:
    found = re.findall(r"data:image/jpeg;base64,([^\"]+)", page_of(store))
    assert len(found) == 14 * 6 * 2  # no identity frames here
    for data in found[:10]:
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[0] == picture.shape[1] > 100


def test_the_same_data_set_gives_the_same_page_anywhere(store: Path, tmp_path: Path) -> None:
    first = write_report(store).read_bytes()
    shutil.copytree(store, tmp_path / "elsewhere")
    assert write_report(tmp_path / "elsewhere").read_bytes() == write_report(store).read_bytes() == first


def test_names_and_texts_are_escaped_and_made_visible(
    tmp_path: Path, make_record: Callable[..., dict[str, Any]], write_store: Callable[..., Path]
) -> None:
    evil = {"speaker_id": NASTY, "transcript": NASTY, "source": NASTY, "source_damage": NASTY}
    rejects = (Reject(NASTY, NASTY, "train", "track", "no-face", NASTY),)
    clip_id = "folder/train/" + NASTY.replace("\n", "%0A")  # no data set has control characters in its ids
    page = checked(page_of(write_store(tmp_path, [make_record(clip_id, **evil)], rejects)))
    assert "script" not in page.tags
    assert page.text.count(visible(NASTY)) >= 6
    assert visible(clip_id) in page.text
    assert "\u202e" not in page.text
    assert visible(NASTY).startswith("a'\"b<script>alert(1)</script>\\n-é名\\u202e")


def test_untrained_weights_are_said_to_be_so(store: Path) -> None:
    assert "untrained: stand-in weights" in checked(page_of(store)).text
    console = Console(record=True, width=160, file=StringIO())
    print_summary(console, summarise(open_dataset(store)))
    assert "untrained" in console.export_text()


def test_trained_features_are_not_called_untrained(
    tmp_path: Path, make_record: Callable[..., dict[str, Any]], write_store: Callable[..., Path]
) -> None:
    extractor = {
        "id": "mel",
        "kind": "mel",
        "width": 4,
        "rate_hz": 25.0,
        "checkpoint": None,
        "untrained": False,
    }
    page = checked(page_of(write_store(tmp_path, [make_record("a")], extractor=extractor)))
    assert "untrained" not in page.text


def test_the_page_stays_below_its_limit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_record: Callable[..., dict[str, Any]],
    write_store: Callable[..., Path],
) -> None:
    assert report.PAGE_BYTES < 10e6
    monkeypatch.setattr(report, "PAGE_BYTES", 1_500_000)
    noise = [
        encode_jpeg(np.random.default_rng(k).integers(0, 255, (256, 256, 3), dtype=np.uint8))
        for k in range(12)
    ]
    identity = np.tile(np.arange(12, dtype=np.int32)[::-1, None], (1, 2))
    masks = [encode_mask(np.ones((256, 256), np.bool_))] * 12
    row = make_record("a", 12, mouth_masks=masks, face_size_px=256, identity_index=identity)
    row["frames"] = noise
    row["crop_matrix"] = crop_matrices(row["landmarks_px"], 256)
    root = write_store(tmp_path, [{**row, "clip_id": f"c/{k}"} for k in range(4)])
    assert 500_000 < write_report(root).stat().st_size < 1_700_000


def test_rows_of_one_frame_and_without_sound_can_be_shown(
    tmp_path: Path, make_record: Callable[..., dict[str, Any]], write_store: Callable[..., Path]
) -> None:
    html = page_of(write_store(tmp_path, [make_record("one", 1, sound=False), make_record("two", 2)]))
    assert "no sound in the source" in checked(html).text


def test_a_data_set_of_rejects_only_still_has_a_report(
    tmp_path: Path, write_store: Callable[..., Path]
) -> None:
    rejects = (Reject("a.mp4", "a", "train", "media", "empty-file", "the file has no bytes"),)
    root = write_store(tmp_path, [], rejects)
    page = checked(page_of(root))
    assert "There are no rows" in page.text
    assert "no values" in page.text
    assert "article" not in page.tags
    print_summary(Console(file=StringIO()), summarise(open_dataset(root)))


def test_lip_points_outside_the_mask_are_warned_of(
    tmp_path: Path, make_record: Callable[..., dict[str, Any]], write_store: Callable[..., Path]
) -> None:
    low = np.zeros((SIZE, SIZE), np.bool_)
    low[SIZE - 10 :] = True
    record = make_record("a", mouth_masks=[encode_mask(low)] * 30)
    assert "lip points outside the mask" in checked(page_of(write_store(tmp_path / "low", [record]))).text
    assert "outside the mask" not in checked(page_of(write_store(tmp_path / "half", [make_record("a")]))).text


def test_a_folder_without_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no data set"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", [80, 200])
def test_the_terminal_shows_counts_rejects_and_distributions(store: Path, width: int) -> None:
    console = Console(record=True, width=width, file=StringIO())
    print_summary(console, summarise(open_dataset(store)))
    text = console.export_text()
    for part in ("14 rows", "no-face", "coverage, %", "lag, frames", "median"):
        assert part in text
