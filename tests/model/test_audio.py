"""What a model hears: windows of stored features, and a sound file, with features as a data set has them."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from syncdiff.model.audio import (
    AudioSpec,
    audio_spec,
    audio_windows,
    clip_audio,
    feature_statistics,
    read_speech,
    speech_features,
    waveform_input,
)
from syncdiff.model.config import TrainConfig
from syncdiff.model.video_faces import open_at_own_rate
from syncdiff.pipeline.avhubert.extractor import AVHubertExtractor, load_avhubert
from syncdiff.pipeline.avhubert.untrained import make_tiny_checkpoint
from syncdiff.pipeline.config import ConfigError
from syncdiff.pipeline.features.extractor import ExtractorInput
from syncdiff.pipeline.features.filterbanks import logfbank
from syncdiff.pipeline.records import F32, I16, ClipError
from syncdiff.pipeline.sample.speech import speak_opening, synthesise
from syncdiff.pipeline.store.read import open_dataset

Tiny = Callable[..., TrainConfig]
SPEC = AudioSpec("logfbank", 104, 25.0, 5)


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


def test_missing_features_are_named_with_what_to_do(store: Path, tiny: Tiny) -> None:
    dataset = open_dataset(store, "train")
    with pytest.raises(ConfigError, match=r"no features 'avhubert'; it has logfbank, mel; add them with"):
        audio_spec(tiny(model={"audio": {"features": "avhubert"}}).model.audio, dataset)
    with pytest.raises(ConfigError, match="choose one of these"):
        audio_spec(tiny(model={"audio": {"features": "deepspeech"}}).model.audio, dataset)
    assert audio_spec(tiny().model.audio, dataset) == SPEC
    assert audio_spec(tiny(model={"audio": {"features": "mel"}}).model.audio, dataset).steps == 16


def test_a_mel_window_is_wav2lips() -> None:
    """Wav2Lip's frames i to i + 4 hear 16 steps from int(80 i / 25); ours are centred, so i = t - 2."""
    mel = np.arange(400, dtype=np.float32)[:, None]
    spec = AudioSpec("mel", 1, 80.0, 16)
    cut = audio_windows(mel, spec, 5, np.arange(2.0, 60.0))
    for frame, window in zip(range(2, 60), cut, strict=True):
        start = int(80.0 * ((frame - 2) / 25.0))
        assert window[:, 0].tolist() == list(range(start, start + 16))


def test_windows_repeat_the_ends_and_follow_other_rates() -> None:
    values = np.arange(10, dtype=np.float32)[:, None]
    spec = AudioSpec("logfbank", 1, 25.0, 5)
    cut = audio_windows(values, spec, 5, np.array([0.0, 9.0, 30.0, 4.4]))[..., 0]
    assert cut.tolist() == [[0, 0, 0, 1, 2], [7, 8, 9, 9, 9], [9] * 5, [2, 3, 4, 5, 6]]


def test_waveform_windows_are_zero_beyond_the_clip() -> None:
    values = np.ones((10, 104), np.float32)
    spec = AudioSpec("waveform", 104, 25.0, 9)
    cut = audio_windows(values, spec, 5, np.array([1.0, 8.0]))
    assert (cut != 0).any(axis=2).tolist() == [[False] * 3 + [True] * 6, [True] * 6 + [False] * 3]


def test_waveforms_are_read_from_the_shards(store: Path, tiny: Tiny) -> None:
    clip = open_dataset(store, "train")[0]
    spec = AudioSpec("waveform", 104, 25.0, 51)
    pcm = clip.audio()
    assert pcm is not None
    assert np.array_equal(clip_audio(clip, spec), logfbank(pcm)[: clip.num_frames])
    assert len(waveform_input(pcm)) == clip.num_frames


def test_statistics_are_those_of_the_split(store: Path) -> None:
    dataset = open_dataset(store, "train")
    mean, std = feature_statistics(dataset, SPEC, [0, 1, 2, 3])
    everything = np.concatenate([clip_audio(clip, SPEC) for clip in dataset])
    assert np.allclose(mean, everything.mean(axis=0), atol=1e-3)
    assert np.allclose(std, everything.std(axis=0), atol=1e-3)


def test_what_is_no_sound_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "speech.wav").write_text("this is no sound")
    with pytest.raises(ClipError, match=r"speech\.wav: "):
        read_speech(tmp_path / "speech.wav")
    (tmp_path / "speaker.mp4").write_text("nor is this a video")
    with pytest.raises(ClipError, match=r"speaker\.mp4: "):
        open_at_own_rate(tmp_path / "speaker.mp4")
