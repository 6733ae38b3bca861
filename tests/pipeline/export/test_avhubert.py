"""AV-HuBERT's manifests: fields, words, units; tests/originals reads them with AV-HuBERT's own loader."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import soundfile

from syncdiff.pipeline.export.avhubert import (
    MMS_LLAMA_WORDS_PER_S,
    export_avhubert,
    export_fairseq_features,
    write_subwords,
)
from syncdiff.pipeline.features.kmeans import Clusters, assign
from syncdiff.pipeline.media.read import open_video
from syncdiff.pipeline.store.read import Dataset, open_dataset

from .conftest import FEATURES


def units_of(dataset: Dataset, count: int = 5) -> Clusters:
    values = dataset[0].features(FEATURES)
    assert values is not None
    return Clusters(FEATURES, values[:count].astype(np.float32))


def test_manifest_words_units_and_media_agree(val: Dataset, tmp_path: Path) -> None:
    clusters = units_of(val)
    counts = export_avhubert(val, tmp_path, clusters=clusters)
    assert counts.written == len(val) and not counts.left_out
    root, *lines = (tmp_path / "valid.tsv").read_text().splitlines()
    words = (tmp_path / "valid.wrd").read_text().splitlines()
    units = (tmp_path / "valid.km").read_text().splitlines()
    assert root == "/" and len(lines) == len(words) == len(units) == len(val)
    vocabulary = {line.split()[0] for line in (tmp_path / "dict.wrd.txt").read_text().splitlines()}
    for clip, line, spoken, unit in zip(val, lines, words, units, strict=True):
        name, video, audio, frames, samples = line.split("\t")
        assert name == clip.clip_id.partition("/")[2] and Path(video).is_absolute()
        pcm, rate = soundfile.read(audio, dtype="int16")
        assert (rate, len(pcm), int(samples)) == (16_000, int(frames) * 640, int(frames) * 640)
        np.testing.assert_array_equal(pcm, clip.audio())
        shown = np.concatenate(list(open_video(Path(video)).chunks()))
        assert shown.shape == (clip.num_frames, 96, 96, 3)
        assert np.abs(shown[..., 1].astype(int) - clip.mouth_rois()).mean() < 2  # H.264
        assert spoken == clip.value("transcript").lower() and set(spoken.split()) <= vocabulary
        features = clip.features(FEATURES)
        assert features is not None
        assert unit.split() == [str(u) for u in assign(clusters, features.astype(np.float32))]
    again = export_avhubert(val, tmp_path, clusters=clusters)
    assert (again.written, again.kept) == (0, len(val))


def test_vsp_llm_counts_runs_of_units(val: Dataset, tmp_path: Path) -> None:
    clusters = units_of(val)
    with pytest.raises(ValueError, match="features kmeans"):
        export_avhubert(val, tmp_path, "vsp-llm")
    export_avhubert(val, tmp_path, "vsp-llm", clusters, language="es")
    units = [line.split() for line in (tmp_path / "valid.km").read_text().splitlines()]
    runs = [line.split() for line in (tmp_path / "valid.cluster_counts").read_text().splitlines()]
    assert runs == [[str(len(list(run))) for _, run in groupby(line)] for line in units]
    assert (tmp_path / "valid.tsv").read_text().splitlines()[1].startswith("lrs2/es-es\t")


def test_mms_llama_has_the_speech_rate(val: Dataset, tmp_path: Path) -> None:
    export_avhubert(val, tmp_path, "mms-llama")
    for clip, line in zip(val, (tmp_path / "valid.tsv").read_text().splitlines()[1:], strict=True):
        words_per_s = len(clip.value("transcript").split()) / (clip.num_frames / 25)
        assert float(line.split("\t")[5]) == pytest.approx(words_per_s / MMS_LLAMA_WORDS_PER_S, abs=0.006)


def test_subwords_replace_the_dictionary(featured_sample: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    export_avhubert(open_dataset(featured_sample, "train"), tmp_path)
    model = write_subwords(tmp_path, 30)
    entries = (tmp_path / "dict.wrd.txt").read_text().splitlines()
    assert model.is_file() and len(entries) == 26 and all(entry.endswith(" 1") for entry in entries)
    with pytest.raises(ValueError, match="cannot be learned"):
        write_subwords(tmp_path, 100_000)


def test_fairseq_features_are_dealt_to_shards(val: Dataset, tmp_path: Path) -> None:
    export_fairseq_features(val, tmp_path, FEATURES, shards=len(val))
    for rank, clip in enumerate(val):
        values = np.load(tmp_path / f"valid_{rank}_{len(val)}.npy")
        np.testing.assert_array_equal(values, clip.features(FEATURES).astype(np.float32))
        assert (tmp_path / f"valid_{rank}_{len(val)}.len").read_text() == f"{clip.num_frames}\n"
    with pytest.raises(ValueError, match="too few"):
        export_fairseq_features(val, tmp_path, FEATURES, shards=len(val) + 1)
