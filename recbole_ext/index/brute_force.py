"""Exact search by one matrix product and the largest of each row: affordable up to 2e5 rows."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_ext.index.interface import pad_neighbours, unit_rows
from recbole_ext.index.largest import largest

CHUNK_CELLS = 1 << 26
"""Similarities held at a time (256 MiB as float32); queries are taken in chunks of this area."""
CPU_QUERIES = 64
"""Queries that one thread takes at a time: more, or fewer, take longer."""
THREADS_QUERIES = 256
"""The same of several threads, to which a product with 64 columns is small."""


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
        n_found = min(k, self.n_rows)
        similarity = queries.new_empty((len(queries), n_found))  # [B, min(K, R)]
        ids = torch.empty_like(similarity, dtype=torch.int64)  # [B, min(K, R)]
        size = max(CHUNK_CELLS // max(self.n_rows, 1), 1)
        buffer = None
        if queries.device.type == "cpu":
            size = min(size, CPU_QUERIES if torch.get_num_threads() == 1 else THREADS_QUERIES)
            # One for all chunks: fresh memory for each would cost as much as the product.
            buffer = queries.new_empty((self.n_rows, min(size, len(queries))))  # [R, size]
        for start in range(0, len(queries), size):
            part = slice(start, start + size)
            cosine = self._compare(queries[part], buffer)  # [b, R]
            if excluded is not None:
                exclude_ranges(cosine, excluded[part])
            similarity[part], ids[part] = largest(cosine, n_found)
        return pad_neighbours(similarity, ids, k)

    def _compare(self, queries: Tensor, buffer: Tensor | None) -> Tensor:
        """Return the cosines [b, R] of queries [b, D], in the buffer [R, at least b] if given.

        Many rows times few queries is the product that a CPU does faster, and its transpose is
        where the maxima of all queries are taken at once.
        """
        if buffer is None:
            return queries @ self.keys.T  # [b, R]
        return torch.mm(self.keys, queries.T, out=buffer[:, : len(queries)]).T  # [b, R]


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
