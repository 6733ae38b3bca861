"""Decoder and beam search equal the original's, on `golden/avhubert/decoder.npz`, and by definition."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from syncdiff.pipeline.avhubert.beam_search import SearchConfig, beam_search
from syncdiff.pipeline.avhubert.checkpoint import Checkpoint
from syncdiff.pipeline.avhubert.decoder import EOS, PAD, Decoder, DecoderConfig
from syncdiff.pipeline.avhubert.load import build_decoder
from syncdiff.pipeline.records import CheckpointError

NETWORKS = ["pre-norm", "post-norm"]
SEARCHES = {"as published": SearchConfig(), "short beam": SearchConfig(5, 0.5, 0.5, 2)}
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def expected(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "avhubert" / "decoder.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def checkpoints(golden: Path) -> dict[str, Checkpoint]:
    """The golden networks, as a fine-tuned checkpoint names their tensors."""
    path = Path(__file__).parents[2] / "deterministic_weights.py"
    spec = importlib.util.spec_from_file_location("deterministic_weights", path)
    assert spec is not None and spec.loader is not None
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    found = {}
    for name, about in json.loads((golden / "avhubert" / "decoder_shapes.json").read_text()).items():
        shapes = {tensor: tuple(shape) for tensor, shape in about["shapes"].items()}
        scale = dict.fromkeys(("decoder.embed_tokens.weight", "decoder.embed_out"), about["scale"])
        state = weights.fill_state_dict(shapes, seed=about["seed"], scale=scale)
        tensors = {tensor: torch.from_numpy(array) for tensor, array in state.items()}
        found[name] = Checkpoint(tensors, {"model": about["model"]}, "torch-zip", f"{name}.pt", "", 0)
    return found


def tiny(layers: int = 1, vocabulary_size: int = 6, seed: int = 0, **options: Any) -> Decoder:
    """A decoder with random weights."""
    decoder = Decoder(DecoderConfig(layers, 8, 12, 2, 8, vocabulary_size, **options))
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in decoder.state_dict().items():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.6 + ("norm.weight" in name))
    return decoder.eval().requires_grad_(False)


def changed(checkpoint: Checkpoint, **model: Any) -> Checkpoint:
    return dataclasses.replace(checkpoint, config={"model": {**checkpoint.config["model"], **model}})


# --- the original's figures -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_log_probabilities_equal_the_original(
    checkpoints: dict[str, Checkpoint], expected: dict[str, np.ndarray], name: str
) -> None:
    decoder = build_decoder(checkpoints[name])
    state = decoder.begin(torch.from_numpy(expected["memory"]))
    steps = [decoder.step(torch.tensor([piece]), state)[0].numpy() for piece in expected["forced"]]
    assert np.abs(np.stack(steps) - expected[f"{name}:log_probs"]).max() <= TOLERANCE


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("name", NETWORKS)
def test_hypotheses_equal_the_original(
    checkpoints: dict[str, Checkpoint], expected: dict[str, np.ndarray], name: str, search: str
) -> None:
    memory = torch.from_numpy(expected["memory"])
    found = beam_search(build_decoder(checkpoints[name]), memory, SEARCHES[search])
    pieces, scores = (expected[f"{name}:{search}:{what}"] for what in ("pieces", "scores"))
    assert np.abs(np.array([one.score for one in found]) - scores).max() <= TOLERANCE
    theirs = [tuple(row[row >= 0][:-1].tolist()) for row in pieces]
    gaps = np.abs(np.diff(scores, prepend=np.inf, append=-np.inf))
    distinct = [index for index in range(len(found)) if gaps[index : index + 2].min() > 2 * TOLERANCE]
    assert 0 in distinct  # those that are as likely as their neighbours may stand in another order
    assert [found[index].pieces for index in distinct] == [theirs[index] for index in distinct]


# --- by definition --------------------------------------------------------------------------------


def log_probability(decoder: Decoder, memory: torch.Tensor, pieces: tuple[int, ...]) -> float:
    """Of the pieces and the end behind them, without the search."""
    state = decoder.begin(memory)
    total = 0.0
    for before, piece in zip((EOS, *pieces), (*pieces, EOS), strict=True):
        total += decoder.step(torch.tensor([before]), state)[0, piece].item()
    return total


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_scores_are_log_probabilities_over_length(length_penalty: float) -> None:
    decoder, memory = tiny(2), torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    found = beam_search(decoder, memory, SearchConfig(beam=5, length_penalty=length_penalty))
    assert len({one.pieces for one in found}) == len(found) == 5
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        length = len(one.pieces) + 1
        expected = log_probability(decoder, memory, one.pieces) / length**length_penalty
        assert one.score == pytest.approx(expected, abs=1e-5)


def test_the_best_of_two_pieces_is_found() -> None:
    decoder, memory = tiny(1), torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    choices = [piece for piece in range(6) if piece not in (EOS, PAD)]
    pairs = [pieces for length in (1, 2) for pieces in itertools.product(choices, repeat=length)]
    best = max(log_probability(decoder, memory, pieces) for pieces in pairs)
    found = beam_search(decoder, memory, SearchConfig(beam=5, length_penalty=0.0))  # 5: all but PAD
    assert found[0].score == pytest.approx(best, abs=1e-5)


def test_hypotheses_are_no_longer_than_the_clip_and_positions() -> None:
    memory = torch.zeros(9, 8)
    for positions, longest in ((2048, 9), (5, 4)):
        found = beam_search(tiny(max_positions=positions), memory, SearchConfig(beam=2))
        assert found
        assert all(1 <= len(one.pieces) <= longest for one in found)


def test_a_hypothesis_does_not_depend_on_its_neighbours_in_the_beam() -> None:
    decoder, memory = tiny(2), torch.randn(7, 8, generator=torch.Generator().manual_seed(2))
    together, alone = decoder.begin(memory), decoder.begin(memory)
    decoder.step(torch.tensor([EOS]), together)
    decoder.step(torch.tensor([EOS]), alone)
    together.select(torch.tensor([0, 0, 0]))
    many = decoder.step(torch.tensor([4, 5, 0]), together)
    assert torch.allclose(many[1], decoder.step(torch.tensor([5]), alone)[0], atol=1e-6)


# --- what does not fit ----------------------------------------------------------------------------


def test_a_missing_decoder_a_missing_tensor_and_other_sizes_are_said(
    checkpoints: dict[str, Checkpoint],
) -> None:
    whole = checkpoints["pre-norm"]
    without = dict(whole.state)
    del without["decoder.layers.1.fc2.bias"]
    refused = {
        "holds no decoder": dataclasses.replace(whole, state={"w": torch.zeros(1)}),
        "lacks the tensor decoder.layers.1.fc2.bias": dataclasses.replace(whole, state=without),
        "lacks the tensor decoder.layers.2": changed(whole, decoder_layers=3),
        "more than the 1 decoder layers": changed(whole, decoder_layers=1),
        "ffn_in.weight has size": changed(whole, decoder_ffn_embed_dim=128),
        "heads must be a positive whole number": changed(whole, decoder_attention_heads="4"),
        "does not divide": changed(whole, decoder_attention_heads=5),
        "max_positions 1000000 is beyond": changed(whole, max_target_positions=10**6),
        "activation must be one of": changed(whole, activation_fn="swish"),
    }
    for sentence, checkpoint in refused.items():
        with pytest.raises(CheckpointError, match=sentence):
            build_decoder(checkpoint)
