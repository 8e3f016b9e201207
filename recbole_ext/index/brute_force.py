"""Exact search by one matrix product and a top-k: the reference, and fast enough up to 2e5 rows."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_ext.index.interface import pad_neighbours, unit_rows

CHUNK_CELLS = 1 << 26
"""Similarities held at a time (256 MiB as float32); queries are taken in chunks of this area."""


class BruteForceIndex:
    """Compares each query with every row, on the device of the vectors.

    Args:
        vectors: [R, D], copied.
    """

    def __init__(self, vectors: Tensor) -> None:
        self.keys = unit_rows(vectors)  # [R, D]
        self.n_rows = len(vectors)

    @classmethod
    def of_unit_rows(cls, keys: Tensor) -> BruteForceIndex:
        """Return an index over vectors [R, D] of length one, which are not copied."""
        index = cls.__new__(cls)
        index.keys, index.n_rows = keys, len(keys)
        return index

    def search(
        self, queries: Tensor, k: int, excluded: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the nearest rows of each query; see :class:`~recbole_ext.index.interface.Index`.

        Raises:
            ValueError: ``k`` is below 1.
        """
        if k < 1:
            raise ValueError(f"k {k} must be at least 1")
        queries = unit_rows(queries).to(self.keys.device)  # [B, D]
        size = max(CHUNK_CELLS // max(self.n_rows, 1), 1)
        similarity = [queries.new_empty((0, min(k, self.n_rows)))]
        ids = [torch.empty((0, min(k, self.n_rows)), dtype=torch.int64, device=queries.device)]
        for start in range(0, len(queries), size):
            cosine = queries[start : start + size] @ self.keys.T  # [b, R]
            if excluded is not None:
                exclude_ranges(cosine, excluded[start : start + size])
            top = cosine.topk(min(k, self.n_rows), dim=1)  # [b, min(K, R)]
            similarity.append(top.values)
            ids.append(top.indices)
        return pad_neighbours(torch.cat(similarity), torch.cat(ids), k)


def exclude_ranges(scores: Tensor, ranges: Tensor) -> None:
    """Set ``scores[b, ranges[b, 0]:ranges[b, 1]]`` to -inf, in place, touching only those cells.

    Args:
        scores: [B, R].
        ranges: Half-open ranges of columns [B, 2].
    """
    ranges = ranges.to(scores.device)
    width = (ranges[:, 1] - ranges[:, 0]).clamp_min(0)  # [B]
    rows = torch.arange(len(scores), device=scores.device).repeat_interleave(width)  # [cells]
    begins = width.cumsum(0) - width  # [B], where each row's cells begin in the flat list
    place = torch.arange(len(rows), device=scores.device) - begins[rows]  # [cells]
    scores[rows, ranges[rows, 0] + place] = float("-inf")
