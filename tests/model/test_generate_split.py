"""Whole splits as videos: which, named how, and that nothing is lost or mixed up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from syncdiff.model.generate import Model, load_model
from syncdiff.model.generate_split import SplitOutcome, generate_results, make_pairs, short_name
from syncdiff.model.video_faces import paste, write_playable
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.faces.mask import MaskConfig
from syncdiff.pipeline.media.probe import probe
from syncdiff.pipeline.media.read import open_video, read_audio
from syncdiff.pipeline.records import ClipError
from syncdiff.pipeline.store.read import open_dataset


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return load_model(trained, "cpu")


def run(
    model: Model,
    store: Path,
    out: Path,
    mode: str = "reconstruction",
    *,
    pairs: Path | None = None,
    split: str | None = "test",
    raw: Path | None = None,
    settings: dict[str, Any] | None = None,
) -> tuple[SplitOutcome, list[str]]:
    dataset, said = open_dataset(store, split), list[str]()
    chosen, outcome = make_pairs(dataset, mode, pairs)  # type: ignore[arg-type]
    return generate_results(
        model, dataset, chosen, outcome, out, raw, 4, settings or {"step": 1}, said.append
    ), said


def frames(path: Path) -> np.ndarray:
    return np.concatenate(list(open_video(path).chunks()))


def test_a_split_becomes_a_folder_of_videos(model: Model, store: Path, tmp_path: Path) -> None:
    outcome, _ = run(model, store, tmp_path)
    dataset = open_dataset(store, "test")
    names = [f"{short_name(clip.clip_id)}.mp4" for clip in dataset]
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.mp4")) == sorted(names)
    assert (outcome.generated, outcome.existing, outcome.left_out) == (2, 0, [])
    for clip, name in zip(dataset, names, strict=True):
        info = probe(tmp_path / name)
        assert (info.width_px, info.height_px, info.source_fps) == (48, 48, 25.0)
        assert (info.video_codec, info.pixel_format, info.audio_codec) == ("h264", "yuv420p", "aac")
        assert len(frames(tmp_path / name)) == clip.num_frames
        heard, true = read_audio(tmp_path / name), clip.audio()
        assert heard is not None and true is not None
        assert np.corrcoef(heard[: len(true)], true[: len(heard)])[0, 1] > 0.9


def test_outside_the_mask_the_video_equals_the_source(model: Model, store: Path, tmp_path: Path) -> None:
    run(model, store, tmp_path)
    clip = open_dataset(store, "test")[0]
    write_playable(tmp_path / "source.mp4", clip.frames(), Fraction(25), None)
    outside = ~clip.masks()
    generated, codec = (
        np.abs(frames(path).astype(float) - clip.frames())
        for path in (tmp_path / f"{short_name(clip.clip_id)}.mp4", tmp_path / "source.mp4")
    )
    assert generated[outside].mean() < codec[outside].mean() + 0.5, (
        "no more than coding the source itself costs"
    )
    assert generated[~outside].mean() > codec[~outside].mean() + 10, "an untrained mouth differs"


def test_the_same_command_makes_what_is_missing(model: Model, store: Path, tmp_path: Path) -> None:
    run(model, store, tmp_path)
    first, second = sorted(tmp_path.rglob("*.mp4"))
    kept = second.read_bytes()
    first.unlink()
    outcome, _ = run(model, store, tmp_path)
    assert (outcome.generated, outcome.existing) == (1, 1)
    assert first.is_file() and second.read_bytes() == kept
    assert not list(tmp_path.rglob(".*"))


def test_a_folder_made_otherwise_is_refused(model: Model, store: Path, tmp_path: Path) -> None:
    run(model, store, tmp_path, settings={"step": 1})
    assert json.loads((tmp_path / "generate.json").read_text()) == {"step": 1}
    with pytest.raises(ConfigError, match="step: 1 -> 2"):
        run(model, store, tmp_path, settings={"step": 2})


def test_cross_gives_each_clip_anothers_sound(store: Path) -> None:
    pairs, _ = make_pairs(open_dataset(store), "cross", None)
    assert all(pair.video != pair.sound for pair in pairs)
    assert Counter(pair.sound for pair in pairs) == Counter(pair.video for pair in pairs)
    assert pairs == make_pairs(open_dataset(store), "cross", None)[0]
    with pytest.raises(ConfigError, match="two clips"):
        make_pairs(open_dataset(store, "val"), "cross", None)


def test_cross_lasts_as_long_as_the_sound(model: Model, store: Path, tmp_path: Path) -> None:
    dataset = open_dataset(store, "test")
    pairs, _ = make_pairs(dataset, "cross", None)
    run(model, store, tmp_path, "cross")
    assert {dataset[p.video].num_frames for p in pairs} == {18, 20}
    for pair in pairs:
        assert len(frames(tmp_path / f"{pair.name}.mp4")) == dataset[pair.sound].num_frames


def test_pairs_lists_are_read_and_missing_clips_told(model: Model, store: Path, tmp_path: Path) -> None:
    names = [short_name(clip.clip_id) for clip in open_dataset(store)]
    listed = tmp_path / "pairs.txt"
    listed.write_text(f"{names[0]} {names[1]}\n\n{names[2]}.mp4 {names[2]}\nnowhere/1 {names[0]}\n")
    outcome, _ = run(model, store, tmp_path / "out", "pairs", pairs=listed, split=None)
    generated = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.mp4"))
    assert generated == sorted([f"{names[1]}__{names[0].replace('/', '_')}.mp4", f"{names[2]}.mp4"])
    assert outcome.left_out == [("pairs.txt:4", "no clip nowhere/1 in the data set")]


def test_a_list_that_is_none_is_refused(store: Path, tmp_path: Path) -> None:
    listed = tmp_path / "pairs.txt"
    listed.write_text("one\n")
    dataset = open_dataset(store)
    for path, message in (
        (listed, "pairs.txt:1: expected"),
        (tmp_path / "no.txt", "no.txt"),
        (None, "needs --pairs"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_pairs(dataset, "pairs", path)


def test_clips_that_cannot_be_made_are_left_out_with_a_reason(
    model: Model, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_store(tmp_path / "data", {"test": [12, 12, 1]}, silent=(1,))
    outcome, _ = run(model, root, tmp_path / "out")
    assert outcome.generated == 1
    assert sorted(reason for _, reason in outcome.left_out) == [
        "generate: single-frame: a clip of one frame has no other to show who speaks",
        "lrs2/test/speaker1/00001: has no sound to speak by",
    ]


def test_masks_that_differ_from_training_are_told(
    model: Model, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_store(tmp_path / "data", {"test": [12]}, mask=MaskConfig(kind="landmarks"))
    _, said = run(model, root, tmp_path / "out")
    assert any("mask settings" in line for line in said)


def test_equal_paths_in_several_splits_stay_apart(make_store: Callable[..., Path], tmp_path: Path) -> None:
    root = make_store(tmp_path, {"train": [12], "test": [12]})
    manifest = json.loads((root / "dataset.json").read_text())
    assert len(manifest["shards"]) == 2
    dataset = open_dataset(root)
    dataset.table = lambda columns: __import__("pyarrow").table({"clip_id": ["l/train/a/1", "l/test/a/1"]})  # type: ignore[method-assign]
    pairs, _ = make_pairs(dataset, "reconstruction", None)
    assert [pair.name for pair in pairs] == ["l/train/a/1", "l/test/a/1"]


def test_full_frames_where_the_raw_data_are_at_hand(model: Model, store: Path, tmp_path: Path) -> None:
    """The raw video here is the crops themselves with a margin, so the store's matrices fit it."""
    dataset = open_dataset(store, "test")
    raw = tmp_path / "raw"
    for clip in dataset:
        wide = np.pad(clip.frames(), ((0, 0), (0, 12), (0, 20), (0, 0)), constant_values=60)
        write_playable(raw / clip.value("source"), wide, Fraction(25), None)
    run(model, store, tmp_path / "out", raw=raw)
    for clip in dataset:
        generated = frames(tmp_path / "out" / f"{short_name(clip.clip_id)}.mp4")
        source = frames(raw / clip.value("source"))
        assert generated.shape == source.shape == (clip.num_frames, 60, 68, 3)
        outside = np.ones(generated.shape[:3], np.bool_)
        outside[:, :48, :48] = ~clip.masks()
        assert np.abs(generated.astype(float) - source)[outside].mean() < 2


def test_a_raw_video_that_is_missing_leaves_its_clip_out(model: Model, store: Path, tmp_path: Path) -> None:
    outcome, _ = run(model, store, tmp_path / "out", raw=tmp_path)
    assert outcome.generated == 0 and all("missing-file" in reason for _, reason in outcome.left_out)


def test_a_video_that_cannot_be_written_is_a_declared_failure(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ClipError, match="encode-error"):
        write_playable(tmp_path / "folder.mp4", [np.zeros((8, 8, 3), np.uint8)], Fraction(25), None)


def test_pasting_scales_the_made_face_to_the_crop() -> None:
    frame, mask = np.zeros((60, 60, 3), np.uint8), np.zeros((40, 40), np.bool_)
    mask[20:, 5:35] = True
    pasted = paste(frame, np.full((20, 20, 3), 200, np.uint8), np.eye(2, 3, dtype=np.float32), mask)
    assert pasted[30, 20].tolist() == [200, 200, 200]
    assert not pasted[:19].any() and not pasted[41:].any()


def test_silent_drives_each_clip_with_silence(
    model: Model, make_store: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_store(tmp_path / "data", {"test": [12, 20]}, silent=(1,))
    outcome, _ = run(model, root, tmp_path / "silent", "silent")
    assert (outcome.generated, outcome.left_out) == (2, []), "a clip without sound can be driven by silence"
    run(model, root, tmp_path / "own")
    for clip, length in zip(open_dataset(root, "test"), (12, 20), strict=True):
        path = tmp_path / "silent" / f"{short_name(clip.clip_id)}.mp4"
        heard = read_audio(path)
        assert len(frames(path)) == length
        assert heard is not None and np.abs(heard).max() <= 1 and abs(len(heard) - 640 * length) < 1100
    first = f"{short_name(open_dataset(root, 'test')[0].clip_id)}.mp4"
    assert (frames(tmp_path / "silent" / first) != frames(tmp_path / "own" / first)).any()
