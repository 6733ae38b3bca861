"""Adding an extractor's features to a data set that is prepared already, shard by shard, images untouched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from syncdiff.pipeline.features.extractor import Extractor, ExtractorInput
from syncdiff.pipeline.store.manifest import (
    extractor_sha256,
    feature_records,
    finished_shards,
    record_features,
)
from syncdiff.pipeline.store.paths import StoreError, StorePaths
from syncdiff.pipeline.store.read import open_dataset
from syncdiff.pipeline.store.schema import feature_schema
from syncdiff.pipeline.store.write import FileEntry, ShardWriter, feature_record, write_atomic

# Clips handed to the extractor at once. It forms batches of similar length among them, so more make fuller
# batches; what is held in memory is their sound, mouth pictures and features, about 1 MB for a second of all.
CLIPS_AT_ONCE = 32


def unfinished_shards(root: Path, extractor: Extractor) -> list[str]:
    """Shards of the data set that lack this extractor's features; also writes extractor.json.

    Raises StoreError where features of the same id came from another checkpoint or setting, or where the
    extractor needs what the data set does not hold.
    """
    paths = StorePaths(root)
    dataset = open_dataset(root)
    if "video" in extractor.needs and len(dataset) and dataset[0].mouth_rois([0]) is None:
        raise StoreError(f"{root} holds no mouth pictures; prepare it with `mouth_rois: true`, or use audio")
    path = paths.extractor(extractor.id)
    described = json.dumps(extractor.describe(), indent=1, sort_keys=True).encode()
    if extractor_sha256(paths, extractor.id) not in (None, hashlib.sha256(described).hexdigest()):
        raise StoreError(
            f"{path} describes other features of the same name; remove that folder to replace them"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, described)
    shards = finished_shards(paths)
    return [shard.name for shard in shards if extractor.id not in feature_records(paths, shard)]


def extract_shard(
    root: Path, shard: str, extractor: Extractor, on_progress: Callable[[int], None] = lambda frames: None
) -> FileEntry:
    """Write one shard of features beside its clip shard, row for row in the same order."""
    dataset = open_dataset(root)
    schema = feature_schema(extractor.id, extractor.width, extractor.rate_hz, extractor.dtype)
    with ShardWriter(dataset.paths.features(extractor.id, shard), schema) as writer:
        clips = dataset.clips_of(shard)
        for first in range(0, len(clips), CLIPS_AT_ONCE):
            group = clips[first : first + CLIPS_AT_ONCE]
            inputs = [
                ExtractorInput(
                    clip.audio() if "audio" in extractor.needs else None,
                    clip.num_frames,
                    clip.mouth_rois() if "video" in extractor.needs else None,
                )
                for clip in group
            ]
            # A clip without the sound that the extractor needs gets a row without values.
            silent = [i for i, clip in enumerate(inputs) if "audio" in extractor.needs and clip.pcm16 is None]
            features = iter(extractor([clip for i, clip in enumerate(inputs) if i not in silent]))
            for i, clip in enumerate(group):
                values = None if i in silent else next(features)
                writer.add(feature_record(clip.clip_id, clip.num_frames, values))
            on_progress(sum(clip.num_frames for clip in group))
        entry = writer.finish(root)
    clips_entry = next(s["clips"] for s in dataset.manifest["shards"] if s["name"] == shard)
    record_features(dataset.paths, extractor.id, shard, clips_entry["sha256"], entry)
    return entry
