"""A fine-tuned checkpoint becomes a lip reader, or says what it lacks."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from syncdiff.pipeline.avhubert.beam_search import SearchConfig, beam_search
from syncdiff.pipeline.avhubert.checkpoint import convert, read_checkpoint, save_safetensors
from syncdiff.pipeline.avhubert.extractor import load_avhubert
from syncdiff.pipeline.avhubert.lip_reader import DICTIONARY_FILE, LipReader, load_lip_reader
from syncdiff.pipeline.avhubert.untrained import VOCABULARY, make_tiny_checkpoint, make_tiny_lip_reader
from syncdiff.pipeline.features.extractor import ExtractorInput
from syncdiff.pipeline.records import CheckpointError

SEARCH = SearchConfig(beam=4)


class Dictionary:
    """Stands for fairseq's class of this name."""

    def __init__(self, symbols: list[str]) -> None:
        self.symbols = symbols
        self.indices = {symbol: index for index, symbol in enumerate(symbols)}


Dictionary.__module__ = "fairseq.data.dictionary"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_lip_reader(tmp_path_factory.mktemp("reader") / "tiny.safetensors")


@pytest.fixture(scope="module")
def reader(checkpoint: Path) -> LipReader:
    return load_lip_reader(checkpoint, search=SEARCH)


def mouths(seed: int, frames: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 96, 96), np.uint8)


def test_reading_is_the_search_over_the_encoders_features(reader: LipReader, checkpoint: Path) -> None:
    clip = ExtractorInput(None, 20, mouths(0))
    features = load_avhubert(checkpoint, "video")([clip])[0].values
    assert reader.features(mouths(0)) == pytest.approx(features, abs=1e-6)
    best = beam_search(reader.decoder, torch.from_numpy(features), SEARCH)[0]
    assert reader.read(mouths(0)) == reader.spell(best.pieces) != ""


def test_what_is_read_depends_on_the_mouth_and_nothing_else(checkpoint: Path) -> None:
    reader = load_lip_reader(checkpoint, search=SEARCH)
    again = load_lip_reader(checkpoint, search=SEARCH)
    assert reader.read(mouths(0)) == again.read(mouths(0))
    assert np.abs(reader.features(mouths(0)) - reader.features(mouths(1))).max() > 0.01


def test_pieces_are_spelt_as_fairseq_spells_them(reader: LipReader) -> None:
    pieces = [VOCABULARY.index(piece) for piece in ("<s>", "\u2581s", "o", "<pad>", "\u2581b", "e", "</s>")]
    assert reader.spell(pieces) == "so be"
    assert reader.spell([VOCABULARY.index("<unk>"), VOCABULARY.index("\u2581b")]) == "<unk> b"
    assert reader.spell([]) == ""


def test_it_is_marked_untrained(reader: LipReader) -> None:
    assert reader.checkpoint.untrained


def test_a_fairseq_file_brings_its_dictionary(
    tmp_path: Path, reader: LipReader, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fairseq", "fairseq.data", "fairseq.data.dictionary"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["fairseq.data.dictionary"], "Dictionary", Dictionary, raising=False)
    tiny = read_checkpoint(checkpoint)
    task = {"target_dictionary": Dictionary(list(VOCABULARY)), "s2s_tokenizer": None}
    torch.save({"model": tiny.state, "cfg": tiny.config, "task_state": task}, tmp_path / "whole.pt")
    convert(tmp_path / "whole.pt")  # puts the encoder alone beside it, which must not be taken for the whole
    found = load_lip_reader(tmp_path / "whole.pt", search=SEARCH)
    assert found.vocabulary == VOCABULARY
    assert found.read(mouths(0)) == reader.read(mouths(0))


def test_a_dictionary_may_lie_beside_the_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    bare = tmp_path / "bare.safetensors"
    save_safetensors(dataclasses.replace(read_checkpoint(checkpoint), vocabulary=()), bare)
    with pytest.raises(CheckpointError, match=r"holds no dictionary, and dict\.wrd\.txt beside it"):
        load_lip_reader(bare)
    lines = "".join(f"{symbol} 1\n" for symbol in VOCABULARY[4:])
    (tmp_path / DICTIONARY_FILE).write_text(lines, "utf-8")
    assert load_lip_reader(bare).vocabulary == VOCABULARY


def test_what_is_no_lip_reader_is_said(tmp_path: Path, checkpoint: Path, golden: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no decoder: it is not a checkpoint fine-tuned"):
        load_lip_reader(make_tiny_checkpoint(tmp_path / "encoder.safetensors"))
    with pytest.raises(CheckpointError, match=r"lacks the tensor decoder\.layers\.0\.encoder_attn"):
        load_lip_reader(golden / "avhubert" / "tiny_finetuned_seq2seq.pt")
    tiny = read_checkpoint(checkpoint)
    wrong = {
        "does not begin with <s>": VOCABULARY[::-1],
        "has 55 symbols, and its decoder 56": VOCABULARY[:-1],
        "holds no sentencepiece": (*VOCABULARY[:4], *map(str, range(52))),
    }
    for sentence, vocabulary in wrong.items():
        save_safetensors(dataclasses.replace(tiny, vocabulary=vocabulary), tmp_path / "wrong.safetensors")
        with pytest.raises(CheckpointError, match=sentence):
            load_lip_reader(tmp_path / "wrong.safetensors")
    narrow = dict(tiny.state)
    for name, tensor in narrow.items():
        if "encoder_attn.k_proj.weight" in name or "encoder_attn.v_proj.weight" in name:
            narrow[name] = tensor[:, :32]
    save_safetensors(dataclasses.replace(tiny, state=narrow), tmp_path / "narrow.safetensors")
    with pytest.raises(CheckpointError, match="expects features of 32, and the encoder has 64"):
        load_lip_reader(tmp_path / "narrow.safetensors")
