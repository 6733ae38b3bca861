"""Whisper and wav2vec 2.0 as extractors, with tiny random models saved on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from syncdiff.pipeline.features.extractor import Extractor, ExtractorInput
from syncdiff.pipeline.features.whisper import load_speech_model
from syncdiff.pipeline.records import CheckpointError

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

KINDS = ["whisper", "wav2vec2"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    whisper = transformers.WhisperConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=48, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=48, max_source_positions=100, vocab_size=100,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    wav2vec2 = transformers.Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    transformers.WhisperModel(whisper).save_pretrained(folder / "tiny-whisper")
    transformers.Wav2Vec2Model(wav2vec2).save_pretrained(folder / "tiny-wav2vec2")
    return {"whisper": folder / "tiny-whisper", "wav2vec2": folder / "tiny-wav2vec2"}


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3000, 3000, int(seconds * 16_000), dtype=np.int16)


@pytest.mark.parametrize("kind", KINDS)
def test_features_lie_on_the_frame_grid(models: dict[str, Path], kind: str) -> None:
    extractor: Extractor = load_speech_model(models[kind])
    assert (extractor.kind, extractor.width, extractor.rate_hz) == (kind, 32, 25.0)
    assert extractor.needs == {"audio"}
    batch = [
        ExtractorInput(sound(1.0), 25),
        ExtractorInput(sound(3.2, 1), 80),
        ExtractorInput(sound(1.0), 30),
    ]
    first, second, third = extractor(batch)
    assert (
        first.values.shape == (25, 32) and second.values.shape == (80, 32) and third.values.shape == (30, 32)
    )
    assert first.padded_steps == 0 and third.padded_steps == 5
    assert not third.values[25:].any() and third.values[24].any()
    assert np.array_equal(first.values, third.values[:25])
    assert np.array_equal(first.values, extractor([batch[0]])[0].values)


@pytest.mark.parametrize("kind", KINDS)
def test_the_frame_grid_is_the_mean_of_the_native_one(models: dict[str, Path], kind: str) -> None:
    native = load_speech_model(models[kind], grid="native")
    assert native.rate_hz == 50.0
    assert native.id.endswith("-native")
    clip = ExtractorInput(sound(2.0), 50)
    fine, coarse = native([clip])[0], load_speech_model(models[kind])([clip])[0]
    assert fine.values.shape == (100, 32)
    pairs = fine.values[: 2 * 49].reshape(49, 2, 32).mean(1)
    assert np.abs(coarse.values[:49] - pairs).max() < 1e-6


def test_whisper_equals_its_own_program(models: dict[str, Path]) -> None:
    """Windows of the model's length (2 s here), the last one padded."""
    model = transformers.WhisperModel.from_pretrained(models["whisper"]).eval()
    mel = transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=2)
    pcm = sound(3.0)
    parts = []
    for piece in (pcm[:32_000], pcm[32_000:]):
        features = mel(
            piece.astype(np.float32) / 32768, sampling_rate=16_000, return_tensors="pt"
        ).input_features
        with torch.no_grad():
            parts.append(model.encoder(features).last_hidden_state[0].numpy())
    wanted = np.concatenate([parts[0], parts[1][:50]])
    values = load_speech_model(models["whisper"], grid="native")([ExtractorInput(pcm, 75)])[0].values
    assert np.abs(values - wanted).max() < 1e-5


def test_wav2vec2_equals_its_own_program(models: dict[str, Path]) -> None:
    model = transformers.Wav2Vec2Model.from_pretrained(models["wav2vec2"]).eval()
    prepare = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    pcm = sound(2.0)
    values = prepare(pcm.astype(np.float32) / 32768, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        hidden = model(values, output_hidden_states=True)
    for layer, wanted in (("final", hidden.last_hidden_state), (1, hidden.hidden_states[1])):
        got = load_speech_model(models["wav2vec2"], layer, grid="native")([ExtractorInput(pcm, 50)])[0]  # type: ignore[arg-type]
        assert got.padded_steps == 1  # its last window would reach beyond the sound
        assert np.abs(got.values[:99] - wanted[0].numpy()).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_layers_differ_and_absent_ones_are_refused(models: dict[str, Path], kind: str) -> None:
    clip = ExtractorInput(sound(1.0), 25)
    layers: list[Any] = [1, "final"]
    first, final = (load_speech_model(models[kind], layer)([clip])[0].values for layer in layers)
    assert not np.array_equal(first, final)
    for layer in (0, 3):
        with pytest.raises(ValueError, match="layer must be 1 to 2"):
            load_speech_model(models[kind], layer)


@pytest.mark.parametrize("kind", KINDS)
def test_very_short_and_absent_sound(models: dict[str, Path], kind: str) -> None:
    extractor = load_speech_model(models[kind])
    values = extractor([ExtractorInput(sound(0.01), 1)])[0].values
    assert values.shape == (1, 32) and np.isfinite(values).all()
    for pcm in (None, np.zeros(0, np.int16)):
        with pytest.raises(ValueError, match="needs sound"):
            extractor([ExtractorInput(pcm, 25)])
    assert np.isfinite(extractor([ExtractorInput(np.zeros(16_000, np.int16), 25)])[0].values).all()


def test_the_description_names_model_and_weights(models: dict[str, Path]) -> None:
    described = load_speech_model(models["whisper"], 1, dtype="float16").describe()
    assert json.loads(json.dumps(described)) == described
    assert described["id"] == "whisper-tiny-whisper-1"
    assert described["checkpoint"]["name"] == "tiny-whisper"
    assert len(described["checkpoint"]["sha256"]) == 64
    assert (described["dtype"], described["width"], described["layer"]) == ("float16", 32, 1)


def test_folders_without_a_usable_model_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no config"):
        load_speech_model(tmp_path)
    config = json.loads((models["whisper"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(CheckpointError, match="pickled weights are not read"):
        load_speech_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="of type bert"):
        load_speech_model(tmp_path)


def test_code_beside_a_model_does_not_run(models: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in models["wav2vec2"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')\n")
    load_speech_model(folder)
    assert not (tmp_path / "it-ran").exists()
