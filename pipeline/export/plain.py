"""Plain files and WebDataset tars: all that a row holds, as it is stored.

Pictures and sound are not encoded a second time except sound, FLAC to WAV, which is lossless.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from syncdiff.pipeline.export.base import (
    Content,
    ExportCounts,
    OnClip,
    export_clips,
    folder_name,
    npy_bytes,
    wav_bytes,
    write_whole,
)
from syncdiff.pipeline.store.read import ClipView, Dataset
from syncdiff.pipeline.store.schema import CLIP_COLUMNS

_NOT_META = {"frames", "mouth_masks", "mouth_rois", "audio_flac"}
_META = [c.name for c in CLIP_COLUMNS if c.name not in _NOT_META]


def export_frames(
    dataset: Dataset, out: Path, features: Sequence[str] = (), on_clip: OnClip = lambda clip: None
) -> ExportCounts:
    """`<split>/<clip>/{frames/00000.jpg, masks/00000.png, audio.wav, <extractor>.npy, meta.json}`."""

    def files_of(clip: ClipView) -> Mapping[Path, Content]:
        folder = out / folder_name(clip.clip_id)
        files = {f"frames/{t:05d}.jpg": image for t, image in enumerate(clip.blobs("frames"))}
        files |= {f"masks/{t:05d}.png": image for t, image in enumerate(clip.blobs("mouth_masks"))}
        if clip.value("audio_flac") is not None:
            files["audio.wav"] = wav_bytes(clip)
        files |= {**dict(_feature_files(clip, features)), "meta.json": _meta(clip)}
        return {folder / name: data for name, data in files.items()}

    return export_clips(dataset, files_of, on_clip)[0]


def export_webdataset(
    dataset: Dataset, out: Path, features: Sequence[str] = (), on_clip: OnClip = lambda clip: None
) -> ExportCounts:
    """One `<shard>.tar` a shard: `<key>.{json,flac,00000.jpg,00000.mask.png,<extractor>.npy}` per clip.

    Keys number the clips of a shard; the clip_id is in the JSON. The same data set gives the same bytes.
    """
    written = kept = 0
    for shard in dataset.shards:
        clips = dataset.clips_of(shard)
        path = out / f"{shard}.tar"
        if path.is_file():
            kept += len(clips)
        else:
            write_whole(path, lambda part: _write_tar(part, clips, features))  # noqa: B023 (called at once)
            written += len(clips)
        for clip in clips:
            on_clip(clip)
    return ExportCounts(written, kept)


def _write_tar(path: Path, clips: Sequence[ClipView], features: Sequence[str]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, clip in enumerate(clips):
            for name, data in _tar_files(clip, features):
                info = tarfile.TarInfo(f"{clip.shard}-{number:06d}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _tar_files(clip: ClipView, features: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    yield "json", _meta(clip)
    flac = clip.value("audio_flac")
    if flac is not None:
        yield "flac", flac
    for t, image in enumerate(clip.blobs("frames")):
        yield f"{t:05d}.jpg", image
    for t, image in enumerate(clip.blobs("mouth_masks")):
        yield f"{t:05d}.mask.png", image
    yield from _feature_files(clip, features)


def _feature_files(clip: ClipView, features: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for name in features:
        values = clip.features(name)
        if values is not None:
            yield f"{name}.npy", npy_bytes(values)


def _meta(clip: ClipView) -> bytes:
    values: dict[str, Any] = {name: clip.value(name) for name in _META}
    return json.dumps(values, ensure_ascii=False, sort_keys=True).encode()
