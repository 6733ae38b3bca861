"""Preparation of talking-face video: raw data sets in, training-ready Parquet shards out."""
