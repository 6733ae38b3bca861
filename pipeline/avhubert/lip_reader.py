"""Lip reading with a fine-tuned AV-HuBERT: mouth pictures of a clip to the words that they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from syncdiff.pipeline.avhubert.beam_search import SearchConfig, beam_search
from syncdiff.pipeline.avhubert.checkpoint import Checkpoint, find_encoder, read_checkpoint
from syncdiff.pipeline.avhubert.decoder import SPECIAL_SYMBOLS, UNK, Decoder
from syncdiff.pipeline.avhubert.encoder import AVHubertEncoder, prepare_for_inference
from syncdiff.pipeline.avhubert.inputs import extract, prepare_video
from syncdiff.pipeline.avhubert.load import build_decoder, build_encoder
from syncdiff.pipeline.records import F32, U8, CheckpointError

DICTIONARY_FILE = "dict.wrd.txt"  # fairseq's name for it, with the labels that AV-HuBERT is fine-tuned on
WORD_START = "\u2581"  # sentencepiece's mark of a space


@dataclass(frozen=True)
class LipReader:
    """Encoder, decoder and word pieces; made by `load_lip_reader`."""

    encoder: AVHubertEncoder
    decoder: Decoder
    vocabulary: tuple[str, ...]
    checkpoint: Checkpoint
    search: SearchConfig

    def features(self, mouths: U8) -> F32:
        """What the encoder sees in mouth pictures [T,96,96]: [T,width]."""
        return extract(self.encoder, video=[prepare_video(mouths)])[0]

    def read(self, mouths: U8) -> str:
        """The words of a clip; empty where none are found."""
        memory = torch.from_numpy(self.features(mouths)).to(self.decoder.embedding.device)
        hypotheses = beam_search(self.decoder, memory, self.search)
        return self.spell(hypotheses[0].pieces) if hypotheses else ""

    def spell(self, pieces: Sequence[int]) -> str:
        """Word pieces as text, without `<s>`, `<pad>` and `</s>` (fairseq's `SentencepieceBPE.decode`)."""
        text = "".join(self.vocabulary[piece] for piece in pieces if piece >= UNK)
        return text.replace(WORD_START, " ").strip()


def load_lip_reader(path: Path, device: str = "cpu", search: SearchConfig | None = None) -> LipReader:
    """A lip reader from a fine-tuned checkpoint (`av_hubert_seq2seq`), in float32.

    Its word pieces are in the checkpoint (`task_state`, in those published), or in a `dict.wrd.txt` beside
    it. Raises CheckpointError where it is none, or parts are missing or do not fit one another.
    """
    checkpoint = read_checkpoint(path, prefer_converted=False)  # a converted file holds the encoder alone
    decoder = build_decoder(checkpoint)
    encoder = build_encoder(find_encoder(checkpoint), "video")
    if decoder.config.memory_width != encoder.config.width:
        raise CheckpointError(
            f"{checkpoint.name}: the decoder expects features of {decoder.config.memory_width}, "
            f"and the encoder has {encoder.config.width}"
        )
    vocabulary = checkpoint.vocabulary or _read_dictionary(path.with_name(DICTIONARY_FILE), checkpoint.name)
    _check(vocabulary, decoder.config.vocabulary_size, checkpoint.name)
    prepare_for_inference(encoder, torch.float32, device)
    return LipReader(encoder, decoder.to(device), vocabulary, checkpoint, search or SearchConfig())


def _read_dictionary(path: Path, checkpoint: str) -> tuple[str, ...]:
    """The symbols of a fairseq dictionary: lines `symbol count`, behind the four that are always there."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        missing = f"{checkpoint} holds no dictionary, and {path.name} beside it cannot be read"
        raise CheckpointError(f"{missing}: {getattr(error, 'strerror', None) or error}") from error
    return (*SPECIAL_SYMBOLS, *(line.split()[0] for line in lines if line.strip()))


def _check(vocabulary: tuple[str, ...], size: int, checkpoint: str) -> None:
    if vocabulary[: len(SPECIAL_SYMBOLS)] != SPECIAL_SYMBOLS:
        raise CheckpointError(f"{checkpoint}: its dictionary does not begin with {' '.join(SPECIAL_SYMBOLS)}")
    if len(vocabulary) != size:
        raise CheckpointError(
            f"{checkpoint}: its dictionary has {len(vocabulary)} symbols, and its decoder {size}"
        )
    if not any(WORD_START in symbol for symbol in vocabulary):
        raise CheckpointError(f"{checkpoint}: its dictionary holds no sentencepiece word pieces")
