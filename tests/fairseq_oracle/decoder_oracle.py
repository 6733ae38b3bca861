"""fairseq's TransformerDecoder and SequenceGenerator on given weights and features. Runs under the Python
that has fairseq (0.12.2), which has nothing of this project: `decoder_oracle.py IN.npz OUT.npz [IN OUT ...]`.

IN holds `config` (JSON: `decoder`, fields of AV-HuBERT's AVHubertSeq2SeqConfig; `memory_width`; `symbols`;
`search`, arguments of SequenceGenerator), `memory` [T,C], `forced` [S] (pieces that are given), and the
decoder's tensors as a checkpoint of AV-HuBERT names them, without `decoder.`. OUT gets `log_probs` [S,V] of
what follows each of the forced pieces, and of the hypotheses, best first, `scores` [N] and `pieces` [N,L],
padded with -1.
"""

import json
import sys

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoder, FairseqEncoderDecoderModel
from fairseq.models.transformer import TransformerConfig, TransformerDecoderBase
from fairseq.sequence_generator import SequenceGenerator


class Given(FairseqEncoder):
    """Features as they are."""

    def forward(self, source, padding_mask):
        return {"encoder_out": [source.transpose(0, 1)], "encoder_padding_mask": [padding_mask]}

    def reorder_encoder_out(self, encoder_out, new_order):
        features, mask = encoder_out["encoder_out"][0], encoder_out["encoder_padding_mask"][0]
        return {
            "encoder_out": [features.index_select(1, new_order)],
            "encoder_padding_mask": [mask.index_select(0, new_order)],
        }


def build(config, memory_width, symbols, tensors):
    dictionary = Dictionary()
    for symbol in symbols:
        dictionary.add_symbol(symbol)
    fairseq = TransformerConfig()
    fairseq.encoder.embed_dim = memory_width
    fairseq.decoder.embed_dim = fairseq.decoder.output_dim = fairseq.decoder.input_dim = config[
        "decoder_embed_dim"
    ]
    fairseq.decoder.ffn_embed_dim = config["decoder_ffn_embed_dim"]
    fairseq.decoder.layers = config["decoder_layers"]
    fairseq.decoder.attention_heads = config["decoder_attention_heads"]
    fairseq.decoder.normalize_before = config["decoder_normalize_before"]
    fairseq.decoder.learned_pos = config["decoder_learned_pos"]
    fairseq.share_decoder_input_output_embed = config["share_decoder_input_output_embed"]
    fairseq.no_scale_embedding = config["no_scale_embedding"]
    fairseq.max_target_positions = config["max_target_positions"]
    fairseq.activation_fn = config["activation_fn"]
    fairseq.dropout = fairseq.attention_dropout = 0.0
    embedding = torch.nn.Embedding(len(dictionary), config["decoder_embed_dim"], dictionary.pad())
    decoder = TransformerDecoderBase(fairseq, dictionary, embedding)
    tensors["output_projection.weight"] = tensors.pop("embed_out", tensors["embed_tokens.weight"])
    missing, unexpected = decoder.load_state_dict(tensors, strict=False)
    assert not unexpected, unexpected
    assert set(missing) <= {"version", "embed_positions._float_tensor"}, missing
    return FairseqEncoderDecoderModel(Given(None), decoder).eval(), dictionary


def answer(source, target):
    with np.load(source) as arrays:
        given = dict(arrays)
    config = json.loads(str(given.pop("config")))
    memory, forced = (torch.from_numpy(given.pop(name))[None] for name in ("memory", "forced"))
    tensors = {name: torch.from_numpy(array) for name, array in given.items()}
    model, dictionary = build(config["decoder"], config["memory_width"], config["symbols"], tensors)
    mask = torch.zeros(memory.shape[:2], dtype=torch.bool)
    with torch.no_grad():
        logits, _ = model.decoder(forced, encoder_out=model.encoder(memory, mask))
        generator = SequenceGenerator([model], dictionary, **config["search"])
        (found,) = generator.generate([model], {"net_input": {"source": memory, "padding_mask": mask}})
    longest = max(len(one["tokens"]) for one in found)
    pieces = np.full((len(found), longest), -1)
    for row, one in zip(pieces, found, strict=True):
        row[: len(one["tokens"])] = one["tokens"].numpy()
    np.savez(
        target,
        log_probs=torch.log_softmax(logits[0], -1).numpy(),
        scores=np.array([float(one["score"]) for one in found]),
        pieces=pieces,
    )


if __name__ == "__main__":
    for number in range(1, len(sys.argv), 2):
        answer(sys.argv[number], sys.argv[number + 1])
