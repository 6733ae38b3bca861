"""SyncDiff: the network, its training and the generation of videos."""

from syncdiff.pipeline.start import start


def train_main() -> None:
    """`syncdiff-train`."""
    start("syncdiff.model.cli", "train_main")


def generate_main() -> None:
    """`syncdiff-generate`."""
    start("syncdiff.model.cli", "generate_main")
