"""Manifests and media for AV-HuBERT and what is built on it: Whisper-Flamingo, VSP-LLM, MMS-LLaMA.

Facts from their programs: `preparation/lrs3_manifest.py`, `preparation/gen_subword.py` and
`hubert_dataset.py` of facebookresearch/av_hubert (258fb50), `src/vsp_llm_dataset.py` and
`src/clustering/cluster_counts.py` of Sally-SH/VSP-LLM (91c4f3d), `manifest/` of JeongHun0716/MMS-LLaMA
(e590937).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np

from syncdiff.pipeline.export.base import (
    Content,
    ExportCounts,
    LeftOutError,
    OnClip,
    export_clips,
    fairseq_split,
    features_of,
    folder_name,
    transcript_of,
    wav_bytes,
    write_lines,
)
from syncdiff.pipeline.features.kmeans import Clusters, assign
from syncdiff.pipeline.media.write import PLAYABLE, write_video
from syncdiff.pipeline.records import FPS, SAMPLES_PER_FRAME
from syncdiff.pipeline.store.read import ClipView, Dataset

Manifest = Literal["avhubert", "vsp-llm", "mms-llama"]

# MMS-LLaMA's manifests give words per second divided by this mean of their training list: over the first 500
# lines of its manifest/433h/test.tsv the quotient is 2.7056 with a spread of 0.007, which is the rounding.
MMS_LLAMA_WORDS_PER_S = 2.7056


def export_avhubert(
    dataset: Dataset,
    out: Path,
    manifest: Manifest = "avhubert",
    clusters: Clusters | None = None,
    language: str = "en",
    on_clip: OnClip = lambda clip: None,
) -> ExportCounts:
    """`{train,valid,test}.tsv` and `.wrd`, `dict.wrd.txt`, `video/*.mp4` (96x96), `audio/*.wav`.

    A manifest's first line is `/`; the others hold id, video, sound, frames and samples, separated by tabs.
    `vsp-llm` has the language pair in the id (recognition: twice `language`) and `.cluster_counts`, the run
    lengths of the clusters; `mms-llama` has the speech rate as a sixth field. With `clusters`, `.km` files
    hold a cluster a frame, for AV-HuBERT's pre-training. Paths are absolute: the loaders want them so.

    Where no row has a transcript, as in VoxCeleb2, there are no `.wrd` files; else rows without one, and
    always rows without sound or mouth pictures, are left out. Raises ValueError for `vsp-llm` without
    `clusters`.
    """
    if manifest == "vsp-llm" and clusters is None:
        raise ValueError("vsp-llm needs clusters: make them with `syncdiff-prep features kmeans`")
    out = out.absolute()
    spoken = manifest != "avhubert" or bool(dataset.table(["transcript"])["transcript"].drop_null())

    def places(clip: ClipView) -> tuple[Path, Path]:
        name = folder_name(clip.clip_id)
        return out / "video" / f"{name}.mp4", out / "audio" / f"{name}.wav"

    def files_of(clip: ClipView) -> Mapping[Path, Content]:
        video, audio = places(clip)
        if spoken:
            transcript_of(clip)
        if clusters is not None:
            features_of(clip, clusters.extractor_id)
        if clip.mouth_rois([0]) is None:
            raise LeftOutError("no mouth pictures")
        return {video: partial(_write_mouths, clip), audio: wav_bytes(clip)}

    counts, clips = export_clips(dataset, files_of, on_clip)
    lines: dict[tuple[str, str], list[str]] = {}
    words: Counter[str] = Counter()
    for clip in clips:
        split = fairseq_split(clip)
        name, frames = folder_name(clip.clip_id), clip.num_frames
        video, audio = places(clip)
        fields = [name, str(video), str(audio), str(frames), str(frames * SAMPLES_PER_FRAME)]
        if spoken:
            transcript = transcript_of(clip).lower()
            lines.setdefault((split, "wrd"), []).append(transcript)
            words.update(transcript.split())
            if manifest == "mms-llama":
                fields.append(f"{len(transcript.split()) / (frames / FPS) / MMS_LLAMA_WORDS_PER_S:.2f}")
            elif manifest == "vsp-llm":
                fields[0] = f"{clip.clip_id.split('/')[0]}/{language}-{language}"
        lines.setdefault((split, "tsv"), ["/"]).append("\t".join(fields))
        if clusters is not None:
            units = assign(clusters, features_of(clip, clusters.extractor_id)).tolist()
            runs = [len(list(run)) for _, run in groupby(units)]
            lines.setdefault((split, "km"), []).append(" ".join(map(str, units)))
            lines.setdefault((split, "cluster_counts"), []).append(" ".join(map(str, runs)))
    for (split, suffix), entries in lines.items():
        write_lines(out / f"{split}.{suffix}", entries)
    if spoken:  # the most frequent first, as fairseq's Dictionary keeps them
        ranked = sorted(words.items(), key=lambda entry: (-entry[1], entry[0]))
        write_lines(out / "dict.wrd.txt", [f"{word} {count}" for word, count in ranked])
    if clusters is not None:
        write_lines(out / "dict.km.txt", [f"{unit} 1" for unit in range(len(clusters.centres))])
    return counts


def write_subwords(out: Path, size: int) -> Path:
    """Replace dict.wrd.txt by `size` SentencePiece units learned from train.wrd, as gen_subword.py does.

    Also writes `spm_unigram<size>.model`. Returns it. Raises ImportError without sentencepiece, ValueError
    where the words do not give that many units.
    """
    import sentencepiece

    prefix = out / f"spm_unigram{size}"
    try:
        sentencepiece.SentencePieceTrainer.Train(
            input=str(out / "train.wrd"), model_prefix=str(prefix), model_type="unigram", vocab_size=size,
            character_coverage=1.0, bos_id=0, pad_id=1, eos_id=2, unk_id=3, minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        raise ValueError(f"{size} units cannot be learned from train.wrd: {error}") from error
    model = prefix.with_suffix(".model")
    units = sentencepiece.SentencePieceProcessor(model_file=str(model))
    # The four special units come first in the model and are fairseq's own: its dictionaries leave them out.
    write_lines(out / "dict.wrd.txt", [f"{units.IdToPiece(i)} 1" for i in range(4, units.GetPieceSize())])
    return model


def export_fairseq_features(
    dataset: Dataset,
    out: Path,
    extractor_id: str,
    shards: int = 1,
    on_clip: OnClip = lambda clip: None,
) -> ExportCounts:
    """`<split>_<rank>_<shards>.npy` [sum of T, D] float32 and `.len`, as `dump_hubert_feature.py` has them.

    The rows of a split are dealt to `shards` files in order, ceil(rows / shards) to each, as that program
    does. Existing files are written again. Raises ValueError where a split has fewer rows than shards.
    """
    by_split: dict[str, list[ClipView]] = {}
    left_out: Counter[str] = Counter()
    for clip in dataset:
        if clip.features(extractor_id, 0, 1) is None:
            left_out[f"no {extractor_id} features"] += 1
        else:
            by_split.setdefault(fairseq_split(clip), []).append(clip)
    written = 0
    for split, clips in by_split.items():
        size = -(-len(clips) // shards)
        for rank in range(shards):
            part = clips[rank * size : (rank + 1) * size]
            if not part:
                raise ValueError(f"{split} has {len(clips)} rows, too few for {shards} shards")
            _write_feature_shard(out / f"{split}_{rank}_{shards}.npy", part, extractor_id, on_clip)
            written += len(part)
    return ExportCounts(written, 0, dict(left_out))


def _write_feature_shard(path: Path, clips: Sequence[ClipView], extractor_id: str, on_clip: OnClip) -> None:
    lengths = [len(features_of(clip, extractor_id)) for clip in clips]
    width = features_of(clips[0], extractor_id).shape[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    values = np.lib.format.open_memmap(part, "w+", np.float32, (sum(lengths), width))
    for clip, stop, length in zip(clips, np.cumsum(lengths), lengths, strict=True):
        values[stop - length : stop] = features_of(clip, extractor_id)
        on_clip(clip)
    values.flush()
    part.replace(path)
    write_lines(path.with_suffix(".len"), [str(length) for length in lengths])


def _write_mouths(clip: ClipView, path: Path) -> None:
    mouths = clip.mouth_rois()
    assert mouths is not None  # asked for before
    write_video(path, (np.repeat(mouth[..., None], 3, axis=2) for mouth in mouths), None, PLAYABLE)
