"""What a run is to make: its shards, and the identity that decides their bytes.

The plan depends only on the inputs and the configuration, never on the number of workers, so any machine
makes the same shards. What earlier runs have made already is known to `store.prep_run`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from syncdiff.pipeline.config import differences
from syncdiff.pipeline.records import Clip

MAX_CLIPS_PER_SHARD = 64  # about 100 MB of VoxCeleb2-length clips
MIN_SHARDS_PER_SPLIT = 16  # so that a small data set still keeps a few cores busy


class PlanError(Exception):
    """A run that must not start as asked: another configuration, a foreign folder, a second run at work."""


@dataclass(frozen=True)
class ShardPlan:
    """The inputs of one shard, in the order of its rows. `name` is `<split>-<number>`."""

    name: str
    split: str
    clips: tuple[Clip, ...]


def plan_shards(clips: Sequence[Clip], clips_per_shard: int | None = None) -> tuple[ShardPlan, ...]:
    """Cut each split's clips, in order of id, into shards of equal number of clips.

    By default a split gets about 16 shards until they reach 64 clips, and more shards from there on.
    """
    plans = []
    ordered = sorted(clips, key=lambda clip: (clip.split, clip.id))
    for split, group in groupby(ordered, key=lambda clip: clip.split):
        members = tuple(group)
        size = clips_per_shard or min(MAX_CLIPS_PER_SHARD, -(-len(members) // MIN_SHARDS_PER_SPLIT))
        for number, first in enumerate(range(0, len(members), size)):
            plans.append(ShardPlan(f"{split}-{number:05d}", split, members[first : first + size]))
    return tuple(plans)


@dataclass(frozen=True)
class RunIdentity:
    """All that decides a data set's bytes: layout, configuration, versions, inputs."""

    layout: str
    config: dict[str, Any]
    versions: dict[str, str]
    inputs: int
    inputs_sha256: str

    @staticmethod
    def of(
        layout: str, config: dict[str, Any], versions: dict[str, str], clips: Iterable[Clip], rejects: int
    ) -> RunIdentity:
        digest = hashlib.sha256()
        count = rejects
        for clip in clips:
            words = [(w.word, w.start_s, w.end_s) for w in clip.words or ()]
            entry = (clip.id, clip.source, clip.split, clip.speaker_id, clip.transcript, words)
            digest.update(json.dumps(entry).encode())
            count += 1
        return RunIdentity(layout, config, versions, count, digest.hexdigest())

    def differences(self, earlier: Mapping[str, Any]) -> list[str]:
        """Lines `key: earlier -> now`, empty where the two runs make the same data set."""
        return differences(earlier, asdict(self))
