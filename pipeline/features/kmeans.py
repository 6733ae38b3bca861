"""Speech units: k-means clusters of stored features, as AV-HuBERT's pre-training and VSP-LLM use them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from syncdiff.pipeline.records import F32
from syncdiff.pipeline.store.read import Dataset
from syncdiff.pipeline.store.write import write_atomic

# learn_kmeans.py of facebookresearch/av_hubert: its defaults for scikit-learn's MiniBatchKMeans.
MAX_ITERATIONS, BATCH_FRAMES, STARTS, PATIENCE = 100, 10_000, 20, 100


@dataclass(frozen=True)
class Clusters:
    """centres [K,D] float32 of the features named `extractor_id`."""

    extractor_id: str
    centres: F32


def fit(
    dataset: Dataset, extractor_id: str, clusters: int, share: float = 1.0, seed: int = 0
) -> tuple[Clusters, float]:
    """Learn clusters from a seeded `share` of the rows; also returns the mean squared distance to a centre.

    Raises ValueError where there are fewer frames than clusters, StoreError for unknown features.
    """
    from sklearn.cluster import MiniBatchKMeans  # a second that nobody else should wait for

    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(dataset))[: max(1, round(share * len(dataset)))]
    rows = [dataset[int(i)].features(extractor_id) for i in sorted(chosen)]
    frames = [row.astype(np.float32) for row in rows if row is not None]
    if sum(map(len, frames)) < clusters:
        raise ValueError(f"{sum(map(len, frames))} frames of {extractor_id} cannot make {clusters} clusters")
    values = np.concatenate(frames)
    model = MiniBatchKMeans(
        clusters, init="k-means++", max_iter=MAX_ITERATIONS, batch_size=BATCH_FRAMES, tol=0.0, n_init=STARTS,
        max_no_improvement=PATIENCE, reassignment_ratio=0.0, compute_labels=False, random_state=seed,
    ).fit(values)  # fmt: skip
    learned = Clusters(extractor_id, model.cluster_centers_.astype(np.float32))
    nearest = learned.centres[assign(learned, values)]
    return learned, float(np.square(values - nearest).sum(axis=1).mean())


def assign(clusters: Clusters, values: F32) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The nearest centre of each step: values [M,D] to [M]. Raises ValueError for another width."""
    if values.ndim != 2 or values.shape[1] != clusters.centres.shape[1]:
        raise ValueError(f"clusters of width {clusters.centres.shape[1]} for features {values.shape}")
    centres = clusters.centres.astype(np.float64)
    # |x - c|^2 without |x|^2, which is the same for every centre
    distance = np.square(centres).sum(axis=1) - 2 * values.astype(np.float64) @ centres.T
    return np.asarray(distance.argmin(axis=1), np.int64)


def save(clusters: Clusters, path: Path) -> None:
    """Write an .npz with the centres and the name of their features."""
    buffer = io.BytesIO()
    np.savez(buffer, centres=clusters.centres, extractor_id=np.array(clusters.extractor_id))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def load(path: Path) -> Clusters:
    """Read what `save` wrote; pickled content is refused. Raises ValueError with the file's name."""
    try:
        with np.load(path, allow_pickle=False) as file:
            centres, name = np.asarray(file["centres"], np.float32), str(file["extractor_id"])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} holds no clusters of `syncdiff-prep features kmeans`: {error}") from error
    if centres.ndim != 2 or not np.isfinite(centres).all():
        raise ValueError(f"{path}: the centres are no table of numbers")
    return Clusters(name, centres)
