"""Plans: the same shards everywhere, every clip in one of them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from syncdiff.pipeline.plan import plan_shards
from syncdiff.pipeline.records import Clip


def clip(name: str, split: str = "train") -> Clip:
    return Clip(f"folder/{split}/{name}", Path(name), name, split)


@given(st.integers(1, 3000), st.integers(0, 40))
def test_every_clip_is_in_exactly_one_shard(train: int, test: int) -> None:
    clips = [clip(f"{i:05d}") for i in range(train)] + [clip(f"{i:05d}", "test") for i in range(test)]
    plans = plan_shards(clips[::-1])
    assert sorted(c.id for p in plans for c in p.clips) == sorted(c.id for c in clips)
    assert len({p.name for p in plans}) == len(plans)
    assert all(0 < len(p.clips) <= 64 and {c.split for c in p.clips} == {p.split} for p in plans)
