"""Scoring of generated talking-face videos under named protocols."""

from syncdiff.pipeline.start import start


def eval_main() -> None:
    """`syncdiff-eval`."""
    start("syncdiff.evaluate.cli")
