"""K-means by cosine (spherical k-means; Dhillon and Modha, Machine Learning 2001).

Our own few lines: scikit-learn's has no cosine and would be a new dependency, and SciPy's, on
normalised vectors, does not normalise its centres again, so that its clusters are other ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def unit_rows(rows: Floats) -> Floats:
    """Return the rows of (n, D) divided by their length; rows of zeros stay zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)


def spherical_kmeans(
    features: Floats, clusters: int, rng: np.random.Generator, *, iterations: int = 100
) -> npt.NDArray[np.int64]:
    """Assign features to clusters so that each is near its cluster's direction.

    Begins as k-means++ does (Arthur and Vassilvitskii, SODA 2007), with 1 - cosine for the squared
    distance. The same features and generator give the same clusters.

    Args:
        features: (n, D) float32, n at least 1.
        clusters: How many at most; never more than n.
        rng: Draws the first centres.
        iterations: At most.

    Returns:
        (n,) int64 in 0..clusters-1; not every cluster need have features.
    """
    unit = unit_rows(features)
    centres = _first_centres(unit, min(clusters, len(unit)), rng)
    labels = np.full(len(unit), -1, np.int64)
    for _ in range(iterations):
        assigned = (unit @ centres.T).argmax(axis=1)
        if np.array_equal(assigned, labels):
            break
        labels = assigned
        members = (labels[None, :] == np.arange(len(centres))[:, None]).astype(np.float32)
        sums = members @ unit
        # A cluster that has lost all its features keeps its direction.
        filled = members.any(axis=1)
        centres[filled] = unit_rows(sums)[filled]
    return labels


def _first_centres(unit: Floats, clusters: int, rng: np.random.Generator) -> Floats:
    chosen = [int(rng.integers(len(unit)))]
    distance = np.maximum(1 - unit @ unit[chosen[0]], 0).astype(np.float64)
    while len(chosen) < clusters:
        total = np.cumsum(distance)
        if total[-1] > 0:
            position = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
            position = min(position, len(unit) - 1)
        else:  # all features lie where centres lie already
            position = int(rng.integers(len(unit)))
        chosen.append(position)
        distance = np.minimum(distance, np.maximum(1 - unit @ unit[position], 0))
    return unit[chosen].copy()


def cluster_means(features: Floats, labels: npt.NDArray[np.int64]) -> Floats:
    """Return the mean feature of each cluster that has any, (at most clusters, D) float32."""
    found = np.unique(labels)
    return np.stack(
        [features[labels == one].mean(axis=0, dtype=np.float64) for one in found]
    ).astype(np.float32)
