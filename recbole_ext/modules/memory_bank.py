"""A queue of earlier keys as negatives, and the slowly moving encoder that makes them.

He et al., Momentum Contrast (MoCo), CVPR 2020, arXiv:1911.05722, section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MemoryBank(nn.Module):
    """The last keys, with the items they are of.

    It begins empty: what is not filled is no negative. Its content is part of every checkpoint.

    Args:
        size: Q, the keys that are kept; no more than there are items, or most would be of items
            that are there already.
        hidden_size: D.
    """

    keys: Tensor
    ids: Tensor
    n_pushed: Tensor

    def __init__(self, size: int, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, hidden_size))  # [Q, D]
        self.register_buffer("ids", torch.zeros(size, dtype=torch.long))  # [Q]
        self.register_buffer("n_pushed", torch.tensor(0))

    @torch.no_grad()
    def push(self, keys: Tensor, ids: Tensor) -> None:
        """Put keys in, in place of the oldest.

        Args:
            keys: [B, D]; of more than Q the last ones.
            ids: Items they are of [B].
        """
        size = len(self.keys)
        skipped = max(0, len(keys) - size)
        keys, ids = keys[skipped:], ids[skipped:]
        order = torch.arange(len(keys), device=keys.device) + skipped  # [b]
        place = (self.n_pushed + order) % size  # [b], without waiting for the number
        self.keys[place] = keys.detach().to(self.keys)
        self.ids[place] = ids
        self.n_pushed += skipped + len(keys)

    def filled(self) -> Tensor:
        """Return which places hold a key [Q]."""
        return torch.arange(len(self.keys), device=self.keys.device) < self.n_pushed

    def logits(self, queries: Tensor, ids: Tensor, temperature: float) -> Tensor:
        """Return the similarities of queries to the keys, [B, Q].

        Args:
            queries: [B, D].
            ids: Items of the queries [B]: a key of the same item is no negative.
            temperature: Divides the similarities.

        Returns:
            -inf where there is no key, or one of the same item.
        """
        hidden = (ids[:, None] == self.ids) | ~self.filled()  # [B, Q]
        return (queries @ self.keys.T / temperature).masked_fill(hidden, -torch.inf)


def bank_info_nce(
    queries: Tensor, keys: Tensor, ids: Tensor, bank: MemoryBank, temperature: float = 0.07
) -> Tensor:
    """Contrast each query's own key with the keys of a bank; cosines.

    Args:
        queries: [B, D].
        keys: Their positives [B, D]; no gradient passes.
        ids: Items of both [B].
        bank: Negatives. It is not changed.
        temperature: Divides the cosines.

    Returns:
        Mean over the batch, a scalar; 0 with an empty bank.
    """
    queries, keys = F.normalize(queries, dim=1), F.normalize(keys.detach(), dim=1)  # [B, D] each
    positive = (queries * keys).sum(1, keepdim=True) / temperature  # [B, 1]
    logits = torch.cat([positive, bank.logits(queries, ids, temperature)], dim=1)  # [B, 1 + Q]
    return -F.log_softmax(logits, dim=1)[:, 0].mean()


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, decay: float = 0.999) -> None:
    """Move the weights of one module a little towards those of another of the same kind.

    Args:
        slow: Becomes decay * slow + (1 - decay) * fast; its buffers become those of ``fast``.
        fast: The module that trains.
        decay: Between 0 and 1.
    """
    for mine, theirs in zip(slow.parameters(), fast.parameters(), strict=True):
        mine.lerp_(theirs, 1 - decay)
    for kept, other in zip(slow.buffers(), fast.buffers(), strict=True):
        kept.copy_(other)
