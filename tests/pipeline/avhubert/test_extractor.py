"""AV-HuBERT behind the interface that the features pass uses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from syncdiff.pipeline.avhubert.checkpoint import convert
from syncdiff.pipeline.avhubert.extractor import AVHubertExtractor, load_avhubert
from syncdiff.pipeline.avhubert.inputs import extract, prepare_audio, prepare_video
from syncdiff.pipeline.avhubert.untrained import make_tiny_checkpoint
from syncdiff.pipeline.features.extractor import Extractor, ExtractorInput, stored_as
from syncdiff.pipeline.records import CheckpointError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.safetensors")


def clip(seed: int, num_frames: int, samples: int | None = None) -> ExtractorInput:
    rng = np.random.default_rng(seed)
    pcm = rng.integers(-3000, 3000, num_frames * 640 if samples is None else samples, dtype=np.int16)
    return ExtractorInput(pcm, num_frames, rng.integers(0, 256, (num_frames, 96, 96), dtype=np.uint8))


@pytest.mark.parametrize("modality", ["audio", "video", "both"])
def test_features_of_a_batch_are_those_of_each_clip(tiny: Path, modality: Any) -> None:
    extractor: Extractor = load_avhubert(tiny, modality)
    clips = [clip(0, 30), clip(1, 9), clip(2, 17)]
    together = extractor(clips)
    for item, features in zip(clips, together, strict=True):
        assert features.extractor_id == extractor.id == f"avhubert-{modality}-final"
        assert features.values.shape == (item.num_frames, extractor.width) == (item.num_frames, 64)
        assert features.values.dtype == np.float32
        assert features.rate_hz == extractor.rate_hz == 25.0
        assert features.padded_steps == 0
        assert np.abs(features.values - extractor([item])[0].values).max() < 2e-5


def test_modalities_read_only_what_they_need(tiny: Path) -> None:
    full = clip(0, 12)
    deaf, blind = dataclasses.replace(full, pcm16=None), dataclasses.replace(full, mouth_rois=None)
    audio, video, both = (load_avhubert(tiny, m) for m in ("audio", "video", "both"))
    assert audio.needs == {"audio"} and video.needs == {"video"} and both.needs == {"audio", "video"}
    assert np.array_equal(audio([blind])[0].values, audio([full])[0].values)
    assert np.array_equal(video([deaf])[0].values, video([full])[0].values)
    for extractor, lacking, message in (
        (audio, deaf, "sound"),
        (both, deaf, "sound"),
        (both, blind, "mouth"),
    ):
        with pytest.raises(ValueError, match=message):
            extractor([lacking])
    with pytest.raises(ValueError, match="for every frame"):
        video([dataclasses.replace(full, num_frames=13)])


@pytest.mark.parametrize(("samples", "padded"), [(640 * 20, 0), (640 * 17, 3), (640 * 26, -6)])
def test_lengths_follow_the_frames_and_padding_is_recorded(tiny: Path, samples: int, padded: int) -> None:
    features = load_avhubert(tiny, "both")([clip(0, 20, samples)])[0]
    assert features.values.shape == (20, 64)
    assert features.padded_steps == padded


def test_values_are_those_of_the_encoder(tiny: Path) -> None:
    extractor = load_avhubert(tiny, "both", 2)
    item = clip(3, 15)
    sound, _ = prepare_audio(item.pcm16, 15)
    wanted = extract(extractor.encoder, [sound], [prepare_video(item.mouth_rois)], 2)[0]
    assert np.array_equal(extractor([item])[0].values, wanted)
    assert extractor([]) == []


def test_all_layers_lie_side_by_side(tiny: Path) -> None:
    extractor = load_avhubert(tiny, "audio", "all")
    assert (extractor.id, extractor.width) == ("avhubert-audio-all", 192)
    values = extractor([clip(0, 10)])[0].values
    second = load_avhubert(tiny, "audio", 2)
    assert second.id == "avhubert-audio-2"
    assert np.array_equal(values[:, 64:128], second([clip(0, 10)])[0].values)


def test_the_description_says_all_that_values_depend_on(tiny: Path) -> None:
    extractor = load_avhubert(tiny, "audio", 3, dtype="float16", compute_dtype="bfloat16")
    described = extractor.describe()
    assert json.loads(json.dumps(described)) == described
    assert described == {
        "id": "avhubert-audio-3",
        "kind": "avhubert",
        "checkpoint": {"name": "tiny.safetensors", "sha256": extractor.checkpoint.sha256},
        "modality": "audio",
        "layer": 3,
        "width": 64,
        "rate_hz": 25.0,
        "dtype": "float16",
        "compute_dtype": "bfloat16",
        "untrained": True,
    }


def test_a_converted_checkpoint_gives_the_same_features_under_the_same_description(
    golden: Path, tmp_path: Path
) -> None:
    source = golden / "avhubert" / "tiny_finetuned_seq2seq.pt"
    original, converted = load_avhubert(source), load_avhubert(convert(source, tmp_path / "x.safetensors"))
    assert converted.describe() == original.describe()
    assert not original.describe()["untrained"]
    item = clip(0, 20)
    assert np.array_equal(converted([item])[0].values, original([item])[0].values)


def test_stored_types(tiny: Path) -> None:
    exact = load_avhubert(tiny, dtype="float32")([clip(0, 10)])[0].values
    half = load_avhubert(tiny, dtype="float16")([clip(0, 10)])[0].values
    assert np.array_equal(half, exact.astype(np.float16).astype(np.float32))
    with pytest.raises(ValueError, match="no numbers in float16"):
        stored_as(np.array([1e6], np.float32), "float16")
    with pytest.raises(ValueError, match="no numbers in float32"):
        stored_as(np.array([np.nan], np.float32), "float32")


def test_wrong_choices_are_refused_before_any_clip(tiny: Path, golden: Path) -> None:
    with pytest.raises(ValueError, match="layer must be 1 to 3"):
        load_avhubert(tiny, layer=4)
    with pytest.raises(ValueError, match="unknown number type"):
        load_avhubert(tiny, dtype="int8")
    with pytest.raises(ValueError, match="unknown number type"):
        load_avhubert(tiny, compute_dtype="tf32")
    with pytest.raises(CheckpointError, match="video input needs"):
        load_avhubert(golden / "avhubert" / "tiny_pretrained_plain_cfg.pt", "both")


def test_the_same_clips_give_the_same_bytes(tiny: Path) -> None:
    clips = [clip(n, 5 + 7 * n) for n in range(4)]
    first, second = (load_avhubert(tiny, "both")(clips) for _ in range(2))
    assert [f.values.tobytes() for f in first] == [f.values.tobytes() for f in second]
    assert isinstance(load_avhubert(tiny), AVHubertExtractor)
