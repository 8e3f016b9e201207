"""What every search structure offers, and the small steps that they share."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

MISSING = -1
"""Id where there are fewer neighbours than asked for; its similarity is -inf."""


class Index(Protocol):
    """Finds the rows with the largest cosine to a query; a row's id is its place."""

    n_rows: int

    def search(
        self, queries: Tensor, k: int, excluded: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the nearest rows of each query, nearest first.

        Args:
            queries: [B, D], of any length: the cosine does not depend on it.
            k: Neighbours per query, K.
            excluded: Half-open ranges of row ids [B, 2] that a query must not find, or ``None``.

        Returns:
            ``(similarity, ids)``, both [B, K]: cosine and int64 row id. Where a query has fewer
            than K neighbours the rest is -inf and :data:`MISSING`.
        """
        ...


def unit_rows(vectors: Tensor) -> Tensor:
    """Return the vectors [R, D] scaled to length one, always in memory of their own.

    On a CPU a numpy view shares its tensor's memory, and whatever normalises the view in place
    (``faiss.normalize_L2``) would rescale the model's own tensor. Hence a copy, detached.
    """
    return F.normalize(vectors.detach().float(), dim=1).contiguous()  # [R, D]


def pad_neighbours(similarity: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Widen [B, <=K] to [B, K] and mark what is missing: similarity -inf, id :data:`MISSING`."""
    short = k - ids.shape[1]
    if short > 0:
        similarity = F.pad(similarity, (0, short), value=float("-inf"))  # [B, K]
        ids = F.pad(ids, (0, short), value=MISSING)  # [B, K]
    missing = (ids == MISSING) | (similarity == float("-inf"))  # [B, K]
    return similarity.masked_fill(missing, float("-inf")), ids.masked_fill(missing, MISSING)


def evenly_spaced(n_rows: int, n: int) -> Tensor:
    """Return ``n`` places from 0 to ``n_rows - 1``, or all where there are no more: [n].

    In whole numbers: those of ``torch.linspace`` go beyond the last row from 2^24 rows on.
    """
    if n >= n_rows:
        return torch.arange(n_rows)
    return torch.arange(n) * (n_rows - 1) // max(1, n - 1)
