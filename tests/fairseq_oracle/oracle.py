"""fairseq's TransformerEncoder on given weights and input. Runs under the Python that has fairseq (0.12.2),
which has nothing of this project: `oracle.py IN.npz OUT.npz`.

IN holds `config` (JSON, fields of Wav2Vec2Config), `x` [B,T,C], `padding_mask` [B,T] and the encoder's
tensors under their own names; OUT gets `final` [B,T,C] and `layer_1`… [B,T,C].
"""

import json
import sys

import numpy as np
import torch
from fairseq.models.wav2vec.wav2vec2 import TransformerEncoder, Wav2Vec2Config


def main(source: str, target: str) -> None:
    with np.load(source) as arrays:
        given = dict(arrays)
    config = Wav2Vec2Config(**json.loads(str(given.pop("config"))))
    x, mask = torch.from_numpy(given.pop("x")), torch.from_numpy(given.pop("padding_mask"))
    encoder = TransformerEncoder(config)
    encoder.load_state_dict({name: torch.from_numpy(array) for name, array in given.items()})
    encoder.eval()
    with torch.no_grad():
        final, layers = encoder(x, padding_mask=mask)
        results = {"final": final.numpy()}
        for number, (output, _, _) in enumerate(layers, 1):
            results[f"layer_{number}"] = output.transpose(0, 1).numpy()
            asked, _ = encoder(x, padding_mask=mask, layer=number - 1)
            valid = ~mask.numpy()
            assert np.array_equal(asked.numpy()[valid], results[f"layer_{number}"][valid])
    np.savez(target, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
