"""The largest of many numbers: on a CPU by the maxima of blocks, which takes one quick pass."""

from __future__ import annotations

import torch
from torch import Tensor

WORTH = 8
"""Blocks of a row for each number that is sought, from which on their maxima are quicker."""

AT_ONCE = 6_400_000
"""Numbers looked at together, 32 rows of 200,000: what is found of them stays in the caches, and in
memory that the process has already."""


def block_of(scores: Tensor) -> int:
    """Return of how many numbers of a row of [B, N] the maximum is taken together.

    As many as one reduction takes at once where they stand side by side in memory; few where the
    numbers of a column do, for the maxima of all rows are then taken at once.
    """
    return 64 if scores.stride(1) == 1 else 8


def largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the K largest of each row, the largest first, and where they stand.

    On a CPU ``torch.topk`` copies every number. But the K largest of a row stand in the K blocks
    with the largest maxima, which are found in the same way, so only these are looked at again.
    Which of equal numbers are found, and in which order, is the same each time but not topk's.

    Args:
        scores: [B, N]; it or its transpose is contiguous, which decides how it is read.
        k: How many, K, at most N.

    Returns:
        Values and indices, both [B, K].
    """
    block = block_of(scores)
    n_blocks = scores.shape[1] // block
    if scores.device.type != "cpu" or k == 0 or n_blocks < WORTH * k:
        values, indices = scores.topk(k)
        return values, indices
    n_rows = max(1, AT_ONCE // scores.shape[1])
    if scores.stride(1) == 1 and len(scores) > n_rows:
        parts = [largest(rows, k) for rows in scores.split(n_rows)]
        return torch.cat([one for one, _ in parts]), torch.cat([one for _, one in parts])
    whole = n_blocks * block
    if scores.stride(1) == 1:
        maxima = scores[:, :whole].unflatten(1, (n_blocks, block)).amax(2)  # [B, N / block]
    else:  # a transpose stays one
        maxima = scores.T[:whole].unflatten(0, (n_blocks, block)).amax(1).T  # [B, N / block]
    _, best = largest(maxima, k)  # [B, K]
    again = (best[:, :, None] * block + torch.arange(block)).flatten(1)  # [B, K * block]
    rest = torch.arange(whole, scores.shape[1]).expand(len(scores), -1)  # [B, N % block]
    again = torch.cat([again, rest], dim=1)  # [B, K * block + N % block]
    values, place = scores.gather(1, again).topk(k)  # [B, K] each
    return values, again.gather(1, place)
