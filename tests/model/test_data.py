"""Samples from the shards: which, in which order, from where on, and what of the shards is read for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncdiff.model import data
from syncdiff.model.audio import (
    AudioSpec,
    clip_audio,
)
from syncdiff.model.config import TrainConfig
from syncdiff.model.data import (
    Batch,
    SampleChoice,
    SampleStream,
    draw,
    loader,
    read_samples,
    resize_faces,
    resize_masks,
    row_groups,
    trainable_rows,
)
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.store.read import open_dataset

Tiny = Callable[..., TrainConfig]
SPEC = AudioSpec("logfbank", 104, 25.0, 5)
RELAXED = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def names(
    config: TrainConfig, store: Path, count: int, position: int = 0, **ranks: int
) -> list[tuple[str, ...]]:
    batches = loader(config, str(store), SPEC, position=position, **ranks)
    return [batch.names for batch in islice(batches, count)]


def equal(a: Batch, b: Batch) -> bool:
    tensors = ("target", "mask", "identity", "pose", "has_pose", "audio", "has_audio")
    return a.names == b.names and all(bool((getattr(a, n) == getattr(b, n)).all()) for n in tensors)


def test_the_same_seed_gives_the_same_samples(store: Path, tiny: Tiny) -> None:
    config = tiny()
    first, again = (list(islice(loader(config, str(store), SPEC), 6)) for _ in range(2))
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))
    other = names(replace(config, seed=1), store, 6)
    assert other != [batch.names for batch in first]


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_any_position_can_be_resumed(workers: int, store: Path, tiny: Tiny) -> None:
    config = tiny(loader={"workers": workers})
    straight = names(config, store, 12)
    for position in (1, 5, 8):
        assert names(config, store, 12 - position, position) == straight[position:]


def test_an_epoch_visits_every_clip_alike_and_then_differently(store: Path, tiny: Tiny) -> None:
    config = tiny()  # 4 clips x 4 samples = 4 batches of 4
    batches = names(config, store, 8)
    epochs = [[name for batch in batches[i : i + 4] for name in batch] for i in (0, 4)]
    for epoch in epochs:
        assert set(Counter(name.split(":")[0] for name in epoch).values()) == {4}
    assert epochs[0] != epochs[1]


@RELAXED
@given(
    groups=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    streams=st.integers(1, 5),
    per_clip=st.integers(1, 5),
    window=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_streams_share_the_row_groups(
    groups: list[int], streams: int, per_clip: int, window: int, seed: int, tiny: Tiny
) -> None:
    config = tiny(loader={"frames_per_clip": per_clip, "window": window}, seed=seed)
    rows = iter(range(99))
    layout = [[next(rows) for _ in range(count)] for count in groups]
    parts = [SampleStream(layout, config, s, streams) for s in range(streams)]
    dealt = [tuple(group) for part in parts for group in part.mine(0)]
    if len(groups) >= streams:
        assert sorted(dealt) == sorted(map(tuple, layout)), "each row group belongs to exactly one stream"
    assert all(part.mine(0) for part in parts), "no stream is without work"
    for part in parts:
        samples = [sample for block in part.blocks(1) for sample in block]
        assert len(samples) == part.samples(1) == len(set(samples))


@RELAXED
@given(position=st.integers(0, 200), seed=st.integers(0, 5))
def test_a_stream_starts_anywhere(position: int, seed: int, tiny: Tiny) -> None:
    config = tiny(loader={"frames_per_clip": 3, "window": 2}, seed=seed)
    stream = SampleStream([[0, 1], [2], [3, 4, 5], [6]], config, 0, 2)

    def endless(start: int) -> list[tuple[int, tuple[int, int]]]:
        blocks = stream.from_position(start)
        return list(islice(((epoch, one) for epoch, block in blocks for one in block), 220 - start))

    assert endless(position) == endless(0)[position:]


def test_ranks_read_different_clips(store: Path, tiny: Tiny) -> None:
    config = tiny()
    seen = [
        {name.split(":")[0] for batch in names(config, store, 2, rank=rank, world=2) for name in batch}
        for rank in range(2)
    ]
    assert seen[0] and seen[1] and not seen[0] & seen[1]


def test_only_the_frames_of_the_samples_are_decoded(
    store: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = open_dataset(store, "train")[0]
    decoded: list[int] = []
    original = type(clip).frames
    monkeypatch.setattr(
        type(clip), "frames", lambda self, indices: decoded.extend(indices) or original(self, indices)
    )
    read_samples(clip, tiny(), SPEC, [SampleChoice(3, 9, 2), SampleChoice(4, 9, 3), SampleChoice(5, 1, -1)])
    assert sorted(decoded) == [1, 2, 3, 4, 5, 9]


def test_a_sample_holds_the_frames_it_names(store: Path, tiny: Tiny) -> None:
    clip = open_dataset(store, "train")[1]
    config = tiny(model={"resolution": 48})
    [sample, mirrored] = read_samples(
        clip, config, SPEC, [SampleChoice(7, 2, 6), SampleChoice(7, 2, -1, mirrored=True)]
    )
    frames = clip.frames([7, 2, 6])
    for got, true in zip((sample.target, sample.identity, sample.pose), frames, strict=True):
        assert np.array_equal(got, true)
    assert np.array_equal(sample.mask, clip.masks([7])[0])
    assert np.array_equal(mirrored.target, frames[0][:, ::-1])
    assert np.array_equal(mirrored.mask, sample.mask[:, ::-1])
    assert not mirrored.has_pose and not mirrored.pose.any()
    features = clip.features("logfbank")
    assert features is not None
    assert np.array_equal(sample.audio, features[5:10])


def test_a_roll_out_describes_the_pose_frames(store: Path, tiny: Tiny) -> None:
    """Its targets are the very pictures that the samples have as pose frames, shown the same way."""
    config = tiny(loader={"rollout": 1.0, "light": 0.2, "shift": 0.1}, model={"pose": {"drop": 0.3}})
    for batch in islice(loader(config, str(store), SPEC), 6):
        assert batch.roll_out is not None
        where, earlier = batch.roll_out.positions, batch.roll_out.batch
        assert batch.has_pose[where].all() and earlier.has_audio.all()
        assert torch.equal(earlier.target, batch.pose[where])
        assert torch.equal(earlier.identity, batch.identity[where])
        for i, name in zip(where.tolist(), earlier.names, strict=True):
            clip, _, frame = batch.names[i].rpartition(":")
            assert name == f"{clip}:{int(frame) - 1}"
    assert all(batch.roll_out is None for batch in islice(loader(tiny(), str(store), SPEC), 3))


def test_a_roll_out_changes_no_other_sample(store: Path, tiny: Tiny) -> None:
    """A share of 0 draws what was drawn before there were roll-outs, and the first of a visit is the same."""
    clip = open_dataset(store, "train")[0]
    plain, rolled = (draw(clip, tiny(loader={"rollout": share}), 0, 0)[0] for share in (0.0, 1.0))
    assert replace(rolled, earlier=None) == plain


def test_light_scales_all_pictures_alike(store: Path, tiny: Tiny) -> None:
    clip = open_dataset(store, "train")[0]
    config = tiny(model={"resolution": 48})
    plain, lit = read_samples(
        clip, config, SPEC, [SampleChoice(7, 2, 6), SampleChoice(7, 2, 6, gains=(0.5, 1.0, 1.5))]
    )
    for a, b in ((plain.target, lit.target), (plain.identity, lit.identity), (plain.pose, lit.pose)):
        expected = np.minimum(a * np.array([0.5, 1.0, 1.5]) + 0.5, 255).astype(np.uint8)
        assert np.array_equal(b, expected)


def test_clips_without_sound_are_left_out(
    make_store: Callable[..., Path], tmp_path: Path, tiny: Tiny
) -> None:
    root = make_store(tmp_path, {"train": [12, 12, 1, 12]}, silent=(1,))
    dataset = open_dataset(root, "train")
    assert trainable_rows(dataset) == [0, 3]
    assert row_groups(dataset, [0, 3]) == [[0], [3]]
    with pytest.raises(ConfigError, match="no sound"):
        clip_audio(dataset[1], SPEC)


def test_row_groups_follow_the_shard(make_store: Callable[..., Path], tmp_path: Path) -> None:
    root = make_store(tmp_path, {"train": [12] * 5}, rows_per_group=2)
    assert row_groups(open_dataset(root, "train"), [0, 1, 2, 3, 4]) == [[0, 1], [2, 3], [4]]


@RELAXED
@given(size=st.integers(8, 80), seed=st.integers(0, 99))
def test_a_resized_mask_covers_all_that_the_mask_touched(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((1, 48, 48), np.bool_)
    y, x = rng.integers(0, 40, 2)
    mask[0, y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)] = True
    face = rng.integers(0, 256, (1, 48, 48, 3)).astype(np.uint8)
    other = np.where(mask[..., None], 255 - face, face)
    small = resize_masks(mask, size)
    outside = ~small[0]
    assert np.array_equal(resize_faces(face, size)[0][outside], resize_faces(other, size)[0][outside])


def test_workers_do_not_spin_up_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(data.cv2, "setNumThreads", calls.append)
    data._single_thread(0)
    assert calls == [0]
