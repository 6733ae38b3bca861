"""How a generated clip and its reference differ in form: no figure of quality, but kept like one."""

from __future__ import annotations

import numpy as np

from syncdiff.evaluate.metric import Metric, Statistics
from syncdiff.evaluate.pairs import ClipPair
from syncdiff.evaluate.records import Case, Form


class FormOfPair(Metric):
    """Frames at 25 per second, sizes and rates of both files."""

    name = "form"
    values = ()

    def measure(self, pair: ClipPair) -> Statistics:
        mismatch = pair.mismatch
        rates = [np.nan if rate is None else rate for rate in mismatch.source_fps]
        return {
            "frames": np.array([pair.generated.num_frames, pair.target.num_frames]),
            "flagged": np.array(mismatch.flagged),
            "sizes_px": np.array([pair.generated.size_px, pair.target.size_px]),
            "fps": np.array(rates, np.float64),
        }

    def score(self, statistics: Statistics) -> dict[str, float]:
        return {}


def form_record(case: Case, statistics: Statistics) -> Form:
    """The record of a case."""
    generated, reference = (int(n) for n in statistics["frames"])
    made, true = ((int(w), int(h)) for w, h in statistics["sizes_px"])
    rates = [None if np.isnan(rate) else float(rate) for rate in statistics["fps"]]
    return Form(
        method=case.method,
        clip=case.clip,
        generated_frames=generated,
        reference_frames=reference,
        flagged=bool(statistics["flagged"]),
        resized_from=None if made == true else made,
        reference_size=true,
        generated_fps=rates[0],
        reference_fps=rates[1],
    )
