"""Preparation of talking-face video: raw data sets in, training-ready Parquet shards out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from syncdiff.pipeline.start import start

if TYPE_CHECKING:
    from syncdiff.pipeline.store.paths import StoreError
    from syncdiff.pipeline.store.read import ClipView, Dataset, open_dataset

__all__ = ["ClipView", "Dataset", "StoreError", "open_dataset"]


def prep_main() -> None:
    """`syncdiff-prep`."""
    start("syncdiff.pipeline.cli")


def __getattr__(name: str) -> Any:
    """Readers are loaded when asked for, so that a command need not wait for Arrow to be stopped in peace."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from syncdiff.pipeline.store import paths, read

    return getattr(paths if name == "StoreError" else read, name)
