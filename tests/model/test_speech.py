"""A sound file as a model hears it: what is refused, and features equal to those of a prepared data set."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from syncdiff.model.audio import AudioSpec, read_speech, speech_features
from syncdiff.pipeline.avhubert.extractor import AVHubertExtractor, load_avhubert
from syncdiff.pipeline.avhubert.untrained import make_tiny_checkpoint
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.features.extractor import ExtractorInput
from syncdiff.pipeline.features.filterbanks import logfbank
from syncdiff.pipeline.records import F32, I16, ClipError
from syncdiff.pipeline.sample.speech import speak_opening, synthesise


def spoken(seconds: float) -> I16:
    rng = np.random.default_rng(3)
    return synthesise(speak_opening(round(seconds * 25), rng), 150.0, rng)


def write(path: Path, pcm: I16, level: float = 1.0) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((pcm * level).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("hubert") / "tiny.safetensors")


@pytest.fixture(scope="module")
def extractor(checkpoint: Path) -> AVHubertExtractor:
    return load_avhubert(checkpoint, "audio", 2)


def features(extractor: dict[str, Any], pcm: I16, avhubert: Path | None = None, rate_hz: float = 25.0) -> F32:
    spec = AudioSpec(extractor["id"], extractor.get("width", 104), rate_hz, 5)
    return speech_features(spec, extractor, pcm, avhubert)


def test_silence_is_no_speech(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"no-speech.*there is no speech to follow"):
        read_speech(write(tmp_path / "quiet.wav", spoken(1.0), level=0.0005))
    assert len(read_speech(write(tmp_path / "low.wav", spoken(1.0), level=0.1))) == 16000


def test_features_without_weights_need_no_file() -> None:
    pcm = spoken(1.0)
    assert np.array_equal(features({"id": "logfbank"}, pcm), logfbank(pcm))
    assert features({"id": "mel"}, pcm, rate_hz=80.0).shape[1] == 80


def test_waveform_models_hear_the_file() -> None:
    pcm = spoken(1.0)
    assert np.array_equal(features({"id": "waveform"}, pcm), logfbank(pcm)[:25])


def test_avhubert_gives_what_the_data_set_holds(checkpoint: Path, extractor: AVHubertExtractor) -> None:
    pcm = spoken(3.0)
    generated = features(extractor.describe(), pcm, checkpoint)
    assert np.array_equal(generated, extractor([ExtractorInput(pcm, 75)])[0].values)


def test_long_speech_is_cut_as_long_clips_are(checkpoint: Path, extractor: AVHubertExtractor) -> None:
    pcm = spoken(45.0)
    generated = features(extractor.describe(), pcm, checkpoint)
    assert generated.shape == (45 * 25, extractor.width)


def test_the_checkpoint_is_asked_for_by_name(extractor: AVHubertExtractor) -> None:
    with pytest.raises(
        ConfigError, match=rf"{extractor.checkpoint.name}: give that checkpoint with --avhubert"
    ):
        features(extractor.describe(), spoken(1.0))


def test_another_checkpoint_is_refused(extractor: AVHubertExtractor, tmp_path: Path) -> None:
    other = make_tiny_checkpoint(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(ConfigError, match="is not the checkpoint that the model was trained with"):
        features(extractor.describe(), spoken(1.0), other)


def test_a_file_that_is_no_checkpoint_is_refused(extractor: AVHubertExtractor, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ConfigError, match="--avhubert: "):
        features(extractor.describe(), spoken(1.0), tmp_path / "x.pt")


def test_features_that_need_pictures_cannot_be_made_of_sound() -> None:
    made_by = {"id": "avhubert-both-final", "kind": "avhubert", "modality": "both"}
    with pytest.raises(ConfigError, match=r"cannot be made of a sound file here.*use --data"):
        features(made_by, spoken(1.0))
