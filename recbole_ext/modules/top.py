"""The items that rank first: ``torch.topk``'s, found by the maxima of blocks on a CPU."""

from __future__ import annotations

from torch import Tensor

from recbole_ext.index.largest import largest


def top_items(scores: Tensor, k: int) -> Tensor:
    """Return the indices that ``torch.topk(scores, k)`` returns, in its order.

    Where two of the k + 1 largest are equal, or are not numbers, their order is whatever torch
    makes of the whole row, and torch is asked.

    Args:
        scores: Scores, [B, N].
        k: How many, K.

    Returns:
        Indices, the best first, [B, K].
    """
    if scores.device.type != "cpu" or k == scores.shape[1]:
        return scores.topk(k).indices
    values, found = largest(scores, k + 1)  # [B, K + 1] each
    top = found[:, :k]  # [B, K]
    unclear = ~(values[:, :-1] > values[:, 1:]).all(1)  # [B]
    if unclear.any():
        top[unclear] = scores[unclear].topk(k).indices
    return top
