"""What a feature is like: how long and how alike its vectors are, and which are nearest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAMPLE = 2000
"""Rows that means of pairs and the rank are taken of."""


@dataclass(frozen=True)
class Shape:
    """Numbers on the vectors of a feature.

    Attributes:
        n: Vectors.
        norm: Mean length, and its standard deviation.
        cosine: Mean cosine of two different vectors: near 1 they tell nothing apart.
        effective_rank: exp of the entropy of the normalised singular values of the centred vectors
            (Roy and Vetterli, The effective rank, EUSIPCO 2007); at most D.
        n_equal: Vectors that another one equals.
    """

    n: int
    norm: tuple[float, float]
    cosine: float
    effective_rank: float
    n_equal: int


def shape_of(vectors: np.ndarray, seed: int = 0) -> Shape:
    """Return numbers on vectors [n, D]."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)  # [n]
    n_equal = len(vectors) - len(np.unique(vectors, axis=0))
    rows = np.random.default_rng(seed).permutation(len(vectors))[:SAMPLE]
    x = vectors[rows].astype(np.float64)  # [m, D]
    unit = x / np.maximum(norms[rows], 1e-12)[:, None]  # [m, D]
    m = len(unit)
    # the sum over all pairs is the square of the sum, less each vector with itself
    pairs = m * (m - 1)
    cosine = float(((unit.sum(0) ** 2).sum() - (unit**2).sum()) / pairs) if pairs else 1.0
    singular = np.linalg.svd(x - x.mean(0), compute_uv=False)  # [min(m, D)]
    share = singular[singular > 0] / max(singular.sum(), 1e-300)
    rank = float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0
    return Shape(len(vectors), (float(norms.mean()), float(norms.std())), cosine, rank, n_equal)


def nearest(vectors: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest others of some vectors by cosine.

    Args:
        vectors: [n, D].
        rows: Of those that are asked about [b].
        k: How many.

    Returns:
        Rows and cosines, [b, k] each, the nearest first.
    """
    x = vectors.astype(np.float32)  # [n, D]
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    cosine = x[rows] @ x.T  # [b, n]
    cosine[np.arange(len(rows)), rows] = -np.inf
    k = min(k, len(x) - 1)
    best = np.argsort(-cosine, axis=1, kind="stable")[:, :k]  # [b, k]
    return best, np.take_along_axis(cosine, best, 1)
