"""Beam search for the likeliest word pieces, with the rules of fairseq's `SequenceGenerator`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from syncdiff.pipeline.avhubert.decoder import EOS, PAD, Decoder


@dataclass(frozen=True)
class SearchConfig:
    """How hypotheses are searched for; the defaults are those of AV-HuBERT's `conf/s2s_decode.yaml`.

    beam: hypotheses kept at a time, and finished ones that end the search. length_penalty: a hypothesis's
    score is its log probability over length^length_penalty, the end counted. pieces_per_frame: longest
    hypothesis, by the clip's length. min_pieces: shortest, without its end.
    """

    beam: int = 50
    length_penalty: float = 1.0
    pieces_per_frame: float = 1.0
    min_pieces: int = 1


@dataclass(frozen=True)
class Hypothesis:
    """Word pieces without the end, and their score."""

    pieces: tuple[int, ...]
    score: float


@torch.inference_mode()
def beam_search(decoder: Decoder, memory: Tensor, config: SearchConfig | None = None) -> list[Hypothesis]:
    """Finished hypotheses of a clip with features [T,width], the best first."""
    config = config or SearchConfig()
    size = decoder.config.vocabulary_size
    beam = min(config.beam, size - 1)  # PAD is never chosen
    longest = min(int(config.pieces_per_frame * len(memory)), decoder.config.max_positions - 1)
    state = decoder.begin(memory)
    pieces = torch.full((1, 1), EOS, device=memory.device)  # fairseq begins with the end; [hypotheses,steps]
    totals = torch.zeros(1, device=memory.device)  # log probability of each
    finished: list[Hypothesis] = []
    for step in range(longest + 1):
        scores = decoder.step(pieces[:, -1], state)
        scores[:, PAD] = -math.inf
        if step == longest:
            scores[:, :EOS] = scores[:, EOS + 1 :] = -math.inf
        elif step < config.min_pieces:
            scores[:, EOS] = -math.inf
        candidates = (totals[:, None] + scores).flatten()
        # Twice as many as are kept: each hypothesis may end, and then as many go on.
        totals, places = candidates.topk(min(2 * beam, len(candidates) - 1))
        parents, nexts = places // size, places % size
        ends = (nexts == EOS) & (totals > -math.inf)
        for index in ends[:beam].nonzero().flatten().tolist()[: beam - len(finished)]:
            score = totals[index].item() / (step + 1) ** config.length_penalty
            finished.append(Hypothesis(tuple(pieces[parents[index], 1:].tolist()), score))
        if len(finished) == beam:
            break
        kept = (~ends).nonzero().flatten()[:beam]
        totals, parents = totals[kept], parents[kept]
        pieces = torch.cat([pieces[parents], nexts[kept, None]], 1)
        state.select(parents)
    return sorted(finished, key=lambda hypothesis: -hypothesis.score)
