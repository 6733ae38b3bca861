"""Wav2Lip's folders: a picture a frame, the sound, and file lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from syncdiff.pipeline.export.base import (
    Content,
    ExportCounts,
    OnClip,
    export_clips,
    folder_name,
    wav_bytes,
    write_split_lists,
)
from syncdiff.pipeline.store.read import ClipView, Dataset


def export_wav2lip(dataset: Dataset, out: Path, on_clip: OnClip = lambda clip: None) -> ExportCounts:
    """`<split>/<clip>/{0.jpg,1.jpg,...,audio.wav}` and `filelists/<split>.txt`, as Wav2Lip's training reads.

    Wav2Lip's `Dataset` (color_syncnet_train.py, wav2lip_train.py) resizes each picture to 96x96 and computes
    its mel spectrogram from audio.wav; `mel` of this data set holds the same values. The crops are ours
    (aligned), not the raw S3FD boxes of Wav2Lip's own preprocess.py. Clips without sound are left out.
    """

    def files_of(clip: ClipView) -> Mapping[Path, Content]:
        folder = out / folder_name(clip.clip_id)
        images = {folder / f"{t}.jpg": image for t, image in enumerate(clip.blobs("frames"))}
        return {**images, folder / "audio.wav": wav_bytes(clip)}

    counts, clips = export_clips(dataset, files_of, on_clip)
    write_split_lists(
        clips, lambda split: out / "filelists" / f"{split}.txt", lambda clip: folder_name(clip.clip_id)
    )
    return counts
