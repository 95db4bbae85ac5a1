"""Prototypes: what the line has seen, as a few unit vectors per class. Novelty is the distance to the nearest one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
ROUNDS = 12


def unit_rows(rows: F32) -> F32:
    """Rows scaled to length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))


def find_prototypes(embedding: F32, labels: NDArray[np.int64], *, per_class: int, seed: int) -> F32:
    """Spherical k-means (Dhillon and Modha, Machine Learning 2001) within each class, seeded.

    Args:
        embedding: [N, D]; labels: [N].

    Returns:
        Unit rows [P, D], at most `per_class` for every class that occurs.
    """
    generator = np.random.default_rng(seed)
    rows = unit_rows(embedding.astype(np.float32))
    return np.concatenate([_k_means(rows[labels == label], per_class, generator) for label in np.unique(labels)])


def _k_means(rows: F32, k: int, generator: np.random.Generator) -> F32:
    if len(rows) <= k:
        return rows
    centres = rows[generator.choice(len(rows), k, replace=False)]
    for _ in range(ROUNDS):
        nearest = (rows @ centres.T).argmax(axis=1)
        sums = np.stack([rows[nearest == i].sum(axis=0) if (nearest == i).any() else centres[i] for i in range(k)])
        centres = unit_rows(sums.astype(np.float32))
    return centres
