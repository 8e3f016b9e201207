"""The items that rank first: ``torch.topk``'s, found by the maxima of blocks on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 64
"""Items whose maximum is taken together."""

_WORTH = 16
"""Blocks of a row for each one that is looked at again, from which on this is quicker."""


def top_items(scores: Tensor, k: int) -> Tensor:
    """Return the indices that ``torch.topk(scores, k)`` returns, in its order.

    On a CPU torch copies every score. The k + 1 largest of a row stand in the k + 1 blocks with the
    largest maxima, so only these are looked at again. Where two of the k + 1 are equal, or are not
    numbers, their order is whatever torch makes of the whole row, and torch is asked.

    Args:
        scores: Scores, [B, N].
        k: How many, K.

    Returns:
        Indices, the best first, [B, K].
    """
    n_blocks = scores.shape[1] // _BLOCK
    if scores.is_cuda or n_blocks < _WORTH * (k + 1):
        return scores.topk(k).indices
    whole = n_blocks * _BLOCK
    blocks = scores[:, :whole].unflatten(1, (n_blocks, _BLOCK))  # [B, N / block, block]
    best = blocks.amax(2).topk(k + 1, sorted=False).indices  # [B, K + 1]
    again = blocks[torch.arange(len(scores))[:, None], best].flatten(1)  # [B, (K + 1) * block]
    found = torch.cat([again, scores[:, whole:]], dim=1).topk(k + 1)  # [B, K + 1]
    place = found.indices[:, :k]  # [B, K]
    number = (place // _BLOCK).clamp(max=k)  # [B, K]
    in_block = best.gather(1, number) * _BLOCK + place % _BLOCK  # [B, K]
    top = torch.where(place < again.shape[1], in_block, place - again.shape[1] + whole)  # [B, K]
    unclear = ~(found.values[:, :-1] > found.values[:, 1:]).all(1)  # [B]
    if unclear.any():
        top[unclear] = scores[unclear].topk(k).indices
    return top
