"""Preparation of talking-face video: raw data sets in, training-ready Parquet shards out."""

from syncdiff.pipeline.store.paths import StoreError
from syncdiff.pipeline.store.read import ClipView, Dataset, open_dataset

__all__ = ["ClipView", "Dataset", "StoreError", "open_dataset"]
