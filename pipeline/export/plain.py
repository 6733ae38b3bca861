"""A prepared data set in the forms that other programs read: Wav2Lip's folders, WebDataset tars, plain files.

Pictures and sound are copied as they are stored; nothing is encoded a second time except sound, FLAC to WAV,
which is lossless. Every clip's files appear whole or not at all, and a second run continues.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import soundfile

from syncdiff.pipeline.records import SAMPLE_RATE_HZ
from syncdiff.pipeline.store.read import ClipView, Dataset
from syncdiff.pipeline.store.schema import CLIP_COLUMNS

_NOT_META = {"frames", "mouth_masks", "mouth_rois", "audio_flac"}
_META = [c.name for c in CLIP_COLUMNS if c.name not in _NOT_META]


@dataclass(frozen=True)
class ExportCounts:
    """written, kept (there already), silent: clips left out because the target needs sound."""

    written: int = 0
    kept: int = 0
    silent: int = 0


def folder_name(clip_id: str) -> str:
    """A clip_id without its layout as a relative folder name that is safe in lists and shells.

    Letters, digits and -_.@/ stay; all else is percent-encoded, and so is a leading dot or dash.
    """
    parts = clip_id.split("/")
    safe = [quote(part, safe="-_.@") for part in parts[1:] or parts]
    return "/".join(f"%{ord(p[0]):02X}{p[1:]}" if p[:1] in ("-", ".") else p for p in safe)


def export_wav2lip(dataset: Dataset, out: Path) -> ExportCounts:
    """`<split>/<clip>/{0.jpg,1.jpg,...,audio.wav}` and `filelists/<split>.txt`, as Wav2Lip's training reads.

    Wav2Lip's `Dataset` (color_syncnet_train.py, wav2lip_train.py) resizes each picture to 96x96 and computes
    its mel spectrogram from audio.wav; `mel` of this data set holds the same values. The crops are ours
    (aligned), not the raw S3FD boxes of Wav2Lip's own preprocess.py. Clips without sound are left out.
    """
    lists: dict[str, list[str]] = {}
    counts = [0, 0, 0]
    for clip in dataset:
        wav = _wav(clip)
        if wav is None:
            counts[2] += 1
            continue
        name = folder_name(clip.clip_id)
        images = [(f"{t}.jpg", image) for t, image in enumerate(clip.blobs("frames"))]
        new = _write_folder(out / name, [*images, ("audio.wav", wav)])
        counts[0 if new else 1] += 1
        lists.setdefault(clip.value("split"), []).append(name)
    for split, names in lists.items():
        path = out / "filelists" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
    return ExportCounts(*counts)


def export_frames(dataset: Dataset, out: Path, features: Sequence[str] = ()) -> ExportCounts:
    """`<split>/<clip>/{frames/00000.jpg, masks/00000.png, audio.wav, <extractor>.npy, meta.json}`."""
    written = kept = 0
    for clip in dataset:
        if _write_folder(out / folder_name(clip.clip_id), _plain_files(clip, features)):
            written += 1
        else:
            kept += 1
    return ExportCounts(written, kept)


def export_webdataset(dataset: Dataset, out: Path, features: Sequence[str] = ()) -> ExportCounts:
    """One `<shard>.tar` a shard: `<key>.{json,flac,00000.jpg,00000.mask.png,<extractor>.npy}` per clip.

    Keys number the clips of a shard; the clip_id is in the JSON. The same data set gives the same bytes.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = kept = 0
    for shard in dataset.shards:
        clips = dataset.clips_of(shard)
        path = out / f"{shard}.tar"
        if path.is_file():
            kept += len(clips)
            continue
        temporary = path.with_suffix(".tar.tmp")
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, clip in enumerate(clips):
                for name, data in _tar_files(clip, features):
                    info = tarfile.TarInfo(f"{shard}-{number:06d}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        temporary.replace(path)
        written += len(clips)
    return ExportCounts(written, kept)


def _plain_files(clip: ClipView, features: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for t, image in enumerate(clip.blobs("frames")):
        yield f"frames/{t:05d}.jpg", image
    for t, image in enumerate(clip.blobs("mouth_masks")):
        yield f"masks/{t:05d}.png", image
    wav = _wav(clip)
    if wav is not None:
        yield "audio.wav", wav
    yield from _feature_files(clip, features)
    yield "meta.json", _meta(clip)


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
            buffer = io.BytesIO()
            np.save(buffer, values, allow_pickle=False)
            yield f"{name}.npy", buffer.getvalue()


def _meta(clip: ClipView) -> bytes:
    values: dict[str, Any] = {name: clip.value(name) for name in _META}
    return json.dumps(values, ensure_ascii=False, sort_keys=True).encode()


def _wav(clip: ClipView) -> bytes | None:
    pcm = clip.audio()
    if pcm is None:
        return None
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _write_folder(folder: Path, files: Iterator[tuple[str, bytes]] | list[tuple[str, bytes]]) -> bool:
    """Write a clip's files beside, then rename; False where the folder is there already."""
    if folder.is_dir():
        return False
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    for name, data in files:
        path = temporary / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    temporary.rename(folder)
    return True
