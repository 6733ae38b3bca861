from __future__ import annotations

from dataclasses import replace

import pytest
from rich.cells import cell_len

from syncdiff.evaluate.records import Failure

from .synthetic_evaluation import NASTY, printed, synthetic


@pytest.mark.parametrize("width", [80, 60, 120])
def test_terminal_fits_its_width_and_says_everything(width: int) -> None:
    text = printed(synthetic(), width)
    assert max(map(cell_len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for wanted in (
        "reconstruction", "wav2lip-lrs", "UNVERIFIED WEIGHTS: syncnet", "no-weights", "syncdiff-prep weights",
        "no-sound", "spk/999", "there is no reference", "40 frames, 50 in the reference",
        "A note for readers.",
    ):  # fmt: skip
        assert wanted in flat, wanted


def test_long_hostile_names_do_not_break_the_terminal() -> None:
    text = printed(synthetic((NASTY * 3, "[bold]b[/]")))
    assert max(map(cell_len, text.encode("utf-8", "replace").decode().splitlines())) <= 80
    assert "[bold]b[/]" in text
    assert "\u202e" not in text


def test_unexpected_errors_come_first() -> None:
    evaluation = synthetic()
    odd = Failure("ours", "spk/000", "psnr", "psnr", "ZeroDivisionError", "division by zero", unexpected=True)
    text = printed(replace(evaluation, failures=(*evaluation.failures, odd)))
    assert text.index("UNEXPECTED") < text.index("no-sound")
