"""The Transformer decoder of fine-tuned AV-HuBERT checkpoints in plain PyTorch: lip features to word pieces.

Vaswani et al., "Attention Is All You Need" (2017), as fairseq builds it (`TransformerDecoder` in AV-HuBERT's
`decoder.py`). It is run one word piece at a time; what earlier pieces and the features have to say to a layer
is computed once and kept in a `DecoderState`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from syncdiff.pipeline.avhubert.encoder import ACTIVATIONS, Linear

# fairseq's Dictionary (data/dictionary.py) has these four before all word pieces, in this order.
SPECIAL_SYMBOLS = ("<s>", "<pad>", "</s>", "<unk>")
BOS, PAD, EOS, UNK = range(4)
MOST_POSITIONS = 1 << 16  # a clip of 44 minutes; a file that asks for more asks for memory


@dataclass(frozen=True)
class DecoderConfig:
    """Size and kind of a decoder. Those published have 6 layers of 768 (Base) or 9 of 1024 (Large), pre-norm,
    ReLU, 1,000 word pieces.

    `memory_width` is that of the encoder's features. `scale_embedding` multiplies embeddings by √width.
    """

    layers: int
    width: int
    ffn_width: int
    heads: int
    memory_width: int
    vocabulary_size: int
    normalize_before: bool = False
    activation: str = "relu"
    scale_embedding: bool = False
    max_positions: int = 2048

    def __post_init__(self) -> None:
        sizes = ("layers", "width", "ffn_width", "heads", "memory_width", "vocabulary_size", "max_positions")
        for name in sizes:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a positive whole number, got {value!r}")
        if self.max_positions > MOST_POSITIONS:
            raise ValueError(f"max_positions {self.max_positions} is beyond {MOST_POSITIONS}")
        if self.width % self.heads or self.width % 2 or self.width < 4:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads, sines and cosines")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")


KeyValue = tuple[Tensor, Tensor]  # [B,heads,T,D] each; B is 1 where all hypotheses share them


@dataclass
class DecoderState:
    """What layers remember of the features (`memory`) and of the pieces so far (`past`), layer by layer."""

    memory: list[KeyValue]
    past: list[KeyValue | None] = field(default_factory=list)
    steps: int = 0

    def select(self, hypotheses: Tensor) -> None:
        """Go on with these hypotheses [B] (indices; one may go on more than once)."""
        self.past = [kv and (kv[0][hypotheses], kv[1][hypotheses]) for kv in self.past]


class DecoderLayer(nn.Module):
    """Attention to the pieces so far, attention to the features, and a feed-forward part; pre-norm or
    post-norm."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.pre_norm = config.normalize_before
        self.activation = config.activation
        self.past_norm = nn.LayerNorm(width)
        self.past_query_key_value = Linear(width, 3 * width)
        self.past_out = Linear(width, width)
        self.memory_norm = nn.LayerNorm(width)
        self.memory_query = Linear(width, width)
        self.memory_key_value = Linear(config.memory_width, 2 * width)
        self.memory_out = Linear(width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn_in = Linear(width, config.ffn_width)
        self.ffn_out = Linear(config.ffn_width, width)

    def remember(self, memory: Tensor) -> KeyValue:
        """Keys and values of features [T,memory_width]."""
        joint = self.memory_key_value(memory)[None].unflatten(-1, (2, self.heads, -1))
        key, value = joint.permute(2, 0, 3, 1, 4)
        return key, value

    def forward(self, x: Tensor, memory: KeyValue, past: KeyValue | None) -> tuple[Tensor, KeyValue]:
        """One more piece of each hypothesis. Shape: [B,width], same result, and the past with it."""
        query, key, value = self._split(self._before(self.past_norm, x), self.past_query_key_value, 3)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        x = self._after(self.past_norm, x + self.past_out(_attend(query, key, value)))
        (query,) = self._split(self._before(self.memory_norm, x), self.memory_query, 1)
        x = self._after(self.memory_norm, x + self.memory_out(_attend(query, *memory)))
        y = self.ffn_out(self.ffn_in(self._before(self.ffn_norm, x), self.activation))
        return self._after(self.ffn_norm, x + y), (key, value)

    def _before(self, norm: nn.Module, x: Tensor) -> Tensor:
        return norm(x) if self.pre_norm else x

    def _after(self, norm: nn.Module, x: Tensor) -> Tensor:
        return x if self.pre_norm else norm(x)

    def _split(self, x: Tensor, joint: Linear, parts: int) -> tuple[Tensor, ...]:
        """One step of each hypothesis [B,C] to so many of [B,heads,1,D]."""
        steps: Tensor = joint(x)[:, None].unflatten(-1, (parts, self.heads, -1))
        return steps.permute(2, 0, 3, 1, 4).unbind(0)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """[B,heads,1,D] over [B or 1,heads,T,D] to [B,width]."""
    batch = len(query)
    key, value = key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1)
    return F.scaled_dot_product_attention(query, key, value).flatten(1)


class Decoder(nn.Module):
    """Features of one clip to log probabilities of the next word piece."""

    positions: Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocabulary_size, config.width))
        self.register_buffer("positions", torch.empty(config.max_positions, config.width))
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width) if config.normalize_before else nn.Identity()
        self.output = nn.Parameter(torch.empty(config.vocabulary_size, config.width))

    def begin(self, memory: Tensor) -> DecoderState:
        """Features [T,memory_width] of a clip, before its first word piece."""
        layers: list[DecoderLayer] = list(self.layers)  # type: ignore[arg-type]
        return DecoderState([layer.remember(memory) for layer in layers], [None] * len(layers))

    def step(self, pieces: Tensor, state: DecoderState) -> Tensor:
        """Log probabilities [B,vocabulary_size] of what follows the last piece [B] of each hypothesis; moves
        `state` on. Raises IndexError beyond `max_positions`."""
        scale = self.config.width**0.5 if self.config.scale_embedding else 1.0
        x = scale * self.embedding[pieces] + self.positions[state.steps]
        for index, layer in enumerate(self.layers):
            x, state.past[index] = layer(x, state.memory[index], state.past[index])
        state.steps += 1
        return F.log_softmax(F.linear(self.final_norm(x), self.output).float(), dim=-1)


def sinusoidal_positions(count: int, width: int) -> Tensor:
    """[count,width]: sines, then cosines, with wavelengths from 2π to 10000·2π, as fairseq's
    `sinusoidal_positional_embedding.py` has them. Its first position is numbered PAD + 1."""
    half = width // 2
    rates = torch.exp(torch.arange(half) * -(math.log(10_000) / (half - 1)))
    angles = (PAD + 1 + torch.arange(count))[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)
