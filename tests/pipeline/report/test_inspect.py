"""The report: right numbers, rows worth a look, a page that is safe, self-contained and always the same."""

from __future__ import annotations

import ast
import base64
import json
import re
import shutil
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

import syncdiff.pipeline
from syncdiff.pipeline.faces.align import crop_matrices, to_crop
from syncdiff.pipeline.media.flac import encode_flac
from syncdiff.pipeline.media.images import encode_jpeg, encode_mask
from syncdiff.pipeline.plan import RunIdentity, ShardPlan
from syncdiff.pipeline.records import _OTHERWISE, SAMPLES_PER_FRAME, Clip, Features, Reject, advice
from syncdiff.pipeline.report import inspect as report
from syncdiff.pipeline.report.contact_sheets import (
    MASK_RGB,
    choose_moments,
    data_address,
    draw_over,
    lag_text,
)
from syncdiff.pipeline.report.inspect import findings, print_summary, write_report
from syncdiff.pipeline.report.outliers import choose_rows, crop_jumps
from syncdiff.pipeline.report.render import visible
from syncdiff.pipeline.report.summary import Summary, summarise
from syncdiff.pipeline.store.manifest import ShardResult
from syncdiff.pipeline.store.paths import StoreError, StorePaths
from syncdiff.pipeline.store.prep_run import PrepRun
from syncdiff.pipeline.store.read import open_dataset
from syncdiff.pipeline.store.schema import CLIP_SCHEMA, feature_schema
from syncdiff.pipeline.store.write import ShardWriter, feature_record

SIZE = 64
NASTY = "a'\"b<script>alert(1)</script>\n-é名\u202e.mp4"


def face_points(frames: int, opening: float = 0.1) -> np.ndarray[Any, Any]:
    """68 points of a schematic frontal face [T,68,2], eyes 50 px apart, in a picture of 200 x 160."""
    angle = np.linspace(0, np.pi, 17)
    points = np.zeros((68, 2))
    points[:17] = np.stack([100 - 50 * np.cos(angle), 65 + 65 * np.sin(angle)], 1)
    points[17:27] = np.stack([np.linspace(58, 142, 10), np.full(10, 52)], 1)
    points[27:31] = np.stack([np.full(4, 100), np.linspace(65, 88, 4)], 1)
    points[31:36] = np.stack([np.linspace(90, 110, 5), np.full(5, 93)], 1)
    around = np.arange(6) * np.pi / 3 + np.pi
    for first, x in ((36, 75), (42, 125)):
        points[first : first + 6] = np.stack([x + 8 * np.cos(around), 65 + 3 * np.sin(around)], 1)
    for first, count, size in ((48, 12, 1.0), (60, 8, 0.7)):
        turn = np.arange(count) * 2 * np.pi / count + np.pi
        height = 50 * opening / 2 + (6 if size == 1 else 0)
        points[first : first + count] = np.stack(
            [100 + 20 * size * np.cos(turn), 108 + height * np.sin(turn)], 1
        )
    return np.repeat(points[None], frames, 0).astype(np.float32)


def make_record(clip_id: str, frames: int = 30, *, sound: bool = True, **columns: Any) -> dict[str, Any]:
    """A clip row of a drawn face whose mouth opens and shuts; any column may be replaced."""
    points = face_points(frames)
    matrices = crop_matrices(points, SIZE)
    crop = np.full((SIZE, SIZE, 3), (60, 90, 120), np.uint8)
    jaw = np.rint(to_crop(points, matrices)[0, :17]).astype(np.int32)
    cv2.fillConvexPoly(crop, jaw, (200, 160, 140))
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[SIZE // 2 :] = True
    opening = (0.2 + 0.2 * np.sin(np.arange(frames) * 0.8)).astype(np.float32)
    pcm = np.repeat((3000 * opening).astype(np.int16), SAMPLES_PER_FRAME)
    box = np.array([50, 40, 150, 140], np.float32)
    record = {
        "clip_id": clip_id, "start_frame": 0, "split": "train", "speaker_id": None, "transcript": None,
        "words": None, "source": f"{clip_id}.mp4", "source_sha256": "0" * 64, "source_fps": 25.0,
        "source_width_px": 200, "source_height_px": 160, "source_damage": None, "fps": 25.0,
        "num_frames": frames, "face_size_px": SIZE, "frames": [encode_jpeg(crop)] * frames,
        "mouth_masks": [encode_mask(mask)] * frames, "mouth_rois": None,
        "boxes_px": np.repeat(box[None], frames, 0), "landmarks_px": points,
        "detection_scores": np.ones(frames, np.float32), "detected": np.ones(frames, bool),
        "crop_matrix": matrices, "head_pose_deg": np.zeros((frames, 3), np.float32), "mouth_opening": opening,
        "pose_index": np.arange(-1, frames - 1, dtype=np.int32),
        "identity_index": np.full((frames, 2), -1, np.int32),
        "audio_flac": encode_flac(pcm) if sound else None, "audio_padded_samples": 0 if sound else None,
        "interocular_px": 50.0, "sharpness": 80.0, "coverage": 1.0, "num_faces": 1,
        "av_lag_frames": 0 if sound else None, "av_correlation": 0.9 if sound else None,
    }  # fmt: skip
    return {**record, **columns}


def write_store(
    root: Path,
    records: list[dict[str, Any]],
    rejects: tuple[Reject, ...] = (),
    extractor: dict[str, Any] | None = None,
) -> Path:
    """A finished data set of these rows in shards of five, its rejects in the last shard."""
    clips = [Clip(r["clip_id"], Path("x"), r["source"], r["split"]) for r in records]
    parts = [records[i : i + 5] for i in range(0, len(records), 5)] or [[]]
    plans = tuple(ShardPlan(f"train-{k:05d}", "train", ()) for k in range(len(parts)))
    run = PrepRun(
        root, RunIdentity.of("folder", {"mask": {"kind": "lower-half"}}, {"numpy": "1"}, clips, 0), plans
    )
    paths = StorePaths(root)
    with run.started():
        for plan, part in zip(plans, parts, strict=True):
            with ShardWriter(paths.clips(plan.name), CLIP_SCHEMA, 100_000) as writer:
                for record in part:
                    writer.add(record)
                entry = writer.finish(root)
            features = {}
            if extractor is not None:
                name = extractor["id"]
                with ShardWriter(paths.features(name, plan.name), feature_schema(name, 4, 25.0)) as writer:
                    for record in part:
                        num_frames = record["num_frames"]
                        values = Features(name, np.zeros((num_frames, 4), np.float32), 25.0)
                        writer.add(feature_record(record["clip_id"], num_frames, values))
                    features[name] = writer.finish(root)
            frames = sum(r["num_frames"] for r in part)
            own = rejects if plan is plans[-1] else ()
            run.record(
                ShardResult(plan.name, "train", len(part) + len(own), len(part), frames, entry, features, own)
            )
        run.finish([])
    if extractor is not None:
        paths.extractor(extractor["id"]).write_text(json.dumps(extractor))
    return root


def summary_of(root: Path) -> Summary:
    return summarise(open_dataset(root))


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


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve ordinary rows, one silent, one that stands out in everything, two kinds of rejects."""
    odd = {
        "coverage": 0.6, "sharpness": 3.0, "num_faces": 3, "av_lag_frames": 9, "av_correlation": 0.7,
        "interocular_px": 12.0, "source_damage": "error while decoding <MB>", "speaker_id": "s<1>",
        "transcript": "IF A < B & C", "detected": np.arange(30) % 5 > 0,
    }  # fmt: skip
    records = [make_record(f"folder/train/{k:02d}") for k in range(12)]
    records.append(make_record("folder/train/silent", sound=False))
    records.append(make_record("folder/train/odd", **odd))
    rejects = (
        *(
            Reject(f"{k}.mp4", f"folder/train/r{k}", "train", "track", "no-face", "no face found")
            for k in range(4)
        ),
        Reject(NASTY, "folder/train/nasty", "train", "media", "read-error", "<b>lost</b>", True),
    )
    extractor = {"id": "net", "kind": "avhubert", "source": "AV-HuBERT", "width": 4, "rate_hz": 25.0,
                 "checkpoint": "tiny.pt", "untrained": True}  # fmt: skip
    return write_store(tmp_path_factory.mktemp("store"), records, rejects, extractor)


def test_the_numbers_are_right(store: Path) -> None:
    summary = summary_of(store)
    (split,) = summary.splits
    assert (split.inputs, split.prepared, split.rejects, split.rows, split.frames) == (19, 14, 5, 14, 14 * 30)
    assert (summary.speakers, split.speakers) == (1, 1)
    assert (summary.rows_with_sound, summary.rows_with_transcript, summary.rows_with_words) == (13, 1, 0)
    assert (summary.damaged_rows, summary.crowded_rows) == (1, 1)
    assert summary.hours == pytest.approx(14 * 1.2 / 3600)
    assert [(r.stage, r.reason, r.number, r.transient) for r in summary.rejects] == [
        ("track", "no-face", 4, 0),
        ("media", "read-error", 1, 1),
    ]
    assert [source for source, _ in summary.rejects[0].examples] == ["0.mp4", "1.mp4", "2.mp4"]
    assert summary.clip_bytes == sum(p.stat().st_size for p in (store / "clips").iterdir())
    lag = summary.distribution("av_lag_frames")
    assert (lag.number, lag.missing, lag.median, lag.minimum, lag.maximum) == (13, 1, 0, 0, 9)
    assert summary.distribution("coverage").minimum == pytest.approx(60)
    assert summary.distribution("mouth_opening").number == 14 * 30
    assert sum(map(sum, summary.joints[0].counts)) == 13
    assert ("mask.kind", "lower-half") in summary.config


def test_one_split_alone_counts_only_its_own(store: Path) -> None:
    assert summarise(open_dataset(store, "train")) == Summary(**{**vars(summary_of(store)), "split": "train"})


def test_nothing_depends_on_the_batches(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = summary_of(store)
    monkeypatch.setattr("syncdiff.pipeline.report.summary.BATCH_ROWS", 3)
    assert summary_of(store) == whole


def test_findings_name_what_a_user_must_know(store: Path) -> None:
    text = "\n".join(findings(summary_of(store)))
    for part in ("net", "untrained", "1 input was", "without sound: 1 of 14", "usable files: 1"):
        assert part in text


def test_rows_that_stand_out_are_chosen_and_the_rest_is_spread(tmp_path: Path) -> None:
    def turned(yaw: float) -> np.ndarray[Any, Any]:
        pose = np.zeros((30, 3), np.float32)
        pose[20, 1] = yaw
        return pose

    jumping = crop_matrices(face_points(30), SIZE)
    jumping[12:, :, 2] += 5
    planted: dict[int, tuple[str, dict[str, Any]]] = {
        3: ("coverage", {"coverage": 0.5}),
        7: ("faces", {"num_faces": 2}),
        11: ("lag", {"av_lag_frames": -8, "av_correlation": 0.8}),
        15: ("correlation", {"av_correlation": 0.05, "av_lag_frames": 9}),
        19: ("turn", {"head_pose_deg": turned(-60)}),
        23: ("opening", {"mouth_opening": np.full(30, 0.9, np.float32)}),
        27: ("size", {"interocular_px": 8.0}),
        31: ("sharpness", {"sharpness": 1.0}),
        35: ("damage", {"source_damage": "x"}),
        39: ("jump", {"crop_matrix": jumping}),
    }
    records = [make_record(f"c/{k}", **(planted[k][1] if k in planted else {})) for k in range(60)]
    dataset = open_dataset(write_store(tmp_path, records))
    choices = choose_rows(dataset, summarise(dataset), 15)
    assert [c.row for c in choices] == [c.row for c in choose_rows(dataset, summarise(dataset), 15)]
    assert len({c.row for c in choices}) == len(choices) == 15
    found = {(c.criterion.key, c.row) for c in choices if c.criterion is not None}
    assert {(key, row) for row, (key, _) in planted.items()} < found
    spread = [c.row for c in choices if c.criterion is None]
    assert len(spread) == 4
    assert np.ptp(spread) > 40


@pytest.mark.parametrize("sheets", [0, 1, 2, 5, 13, 14, 15, 100])
def test_never_more_sheets_than_asked_for_and_none_twice(store: Path, sheets: int) -> None:
    dataset = open_dataset(store)
    rows = [c.row for c in choose_rows(dataset, summarise(dataset), sheets)]
    assert len(rows) == len(set(rows)) == min(sheets, 14)


def test_crop_jumps_measure_moves_and_growth_within_a_row() -> None:
    still = np.array([[0.5, 0, 3], [0, 0.5, 4]])
    moved = still + np.array([[0, 0, 8], [0, 0, 0]])  # 8 of 64 crop pixels
    middle = (64 - 1) / 2
    grown = np.array(
        [[1, 0, middle - 2 * (middle - 3)], [0, 1, middle - 2 * (middle - 4)]]
    )  # about the same centre
    matrices = np.stack([still, still, moved, still, grown])
    jumps = crop_jumps(matrices, np.full(5, 64.0), np.array([3, 2]))
    np.testing.assert_allclose(jumps, [0, 0, 8 / 64, 0, np.log(2)], atol=1e-12)
    assert np.isnan(crop_jumps(np.zeros((2, 2, 3)), np.full(2, 64.0), np.array([2]))[1])


def test_moments_are_even_in_time_with_the_widest_mouth_and_a_gap_among_them() -> None:
    opening = np.zeros(120, np.float32)
    detected = np.ones(120, bool)
    assert [t for t, _ in choose_moments(opening, detected)][1:] == [30, 50, 70, 90, 110]
    opening[37] = 1
    detected[64:71] = False
    assert choose_moments(opening, detected)[1] == (37, "mouth widest")
    assert choose_moments(opening, detected)[3] == (67, "interpolated")
    assert [t for t, _ in choose_moments(opening[:3], detected[:3])] == [0, 1, 2]
    assert choose_moments(np.full(1, np.nan, np.float32), np.zeros(1, bool)) == [
        (0, "mouth widest, interpolated")
    ]


def test_mask_and_landmarks_are_drawn_where_they_are() -> None:
    crop = np.zeros((SIZE, SIZE, 3), np.uint8)
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[40:, 16:48] = True
    points = np.full((68, 2), 8.0, np.float32)
    drawn = draw_over(crop, points, mask)
    scale = len(drawn) // SIZE
    assert drawn[50 * scale, 32 * scale].tolist() == pytest.approx([round(0.18 * c) for c in MASK_RGB], abs=1)
    assert drawn[20 * scale, 32 * scale].tolist() == [0, 0, 0]
    assert drawn[int(8.5 * scale), int(8.5 * scale)].max() > 150
    assert draw_over(crop, points * 1e6, mask).shape == drawn.shape


def test_pictures_keep_to_their_size() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    sizes = [len(base64.b64decode(data_address(noise, most).split(",")[1])) for most in (100_000, 12_000, 1)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[1] <= 12_000


def test_lags_are_said_in_words() -> None:
    assert lag_text(-3) == "sound 3 frames (120 ms) early"
    assert lag_text(1) == "sound 1 frame (40 ms) late"
    assert lag_text(1, brief=True) == "sound 1 frame late"
    assert lag_text(0).startswith("0")
    assert lag_text(None) == "unknown"


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


def test_names_and_texts_are_escaped_and_made_visible(tmp_path: Path) -> None:
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
    print_summary(console, summary_of(store))
    assert "untrained" in console.export_text()


def test_trained_features_are_not_called_untrained(tmp_path: Path) -> None:
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


def test_the_page_stays_below_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_rows_of_one_frame_and_without_sound_can_be_shown(tmp_path: Path) -> None:
    html = page_of(write_store(tmp_path, [make_record("one", 1, sound=False), make_record("two", 2)]))
    assert "no sound in the source" in checked(html).text


def test_a_data_set_of_rejects_only_still_has_a_report(tmp_path: Path) -> None:
    rejects = (Reject("a.mp4", "a", "train", "media", "empty-file", "the file has no bytes"),)
    root = write_store(tmp_path, [], rejects)
    page = checked(page_of(root))
    assert "There are no rows" in page.text
    assert "no values" in page.text
    assert "article" not in page.tags
    print_summary(Console(file=StringIO()), summary_of(root))


def test_lip_points_outside_the_mask_are_warned_of(tmp_path: Path) -> None:
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
    print_summary(console, summary_of(store))
    text = console.export_text()
    for part in ("14 rows", "no-face", "coverage, %", "lag, frames", "median"):
        assert part in text


def test_every_reason_has_advice() -> None:
    package = Path(syncdiff.pipeline.__file__).parent
    reasons = {r for file in package.rglob("*.py") for r in reasons_in(ast.parse(file.read_text("utf-8")))}
    assert {"no-face", "truncated", "outside-root", "broken-symlink", "internal-error"} <= reasons
    assert sorted(r for r in reasons if advice(r) == _OTHERWISE) == []


def reasons_in(tree: ast.AST) -> set[str]:
    """Reasons written out where a clip or an input of the listing is given up, by the calls that do it."""
    place = {"ClipError": 1, "Problem": 1, "_problem": -2, "_reject": -2, "_refuse": 0}
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name not in place or len(node.args) <= abs(place[name]):
            continue
        stage, reason = node.args[0], node.args[place[name]]
        other_command = isinstance(stage, ast.Constant) and stage.value in ("sample", "features", "weights")
        if not other_command and isinstance(reason, ast.Constant) and isinstance(reason.value, str):
            found.add(reason.value)
    return found
