"""A queue of earlier keys as negatives, and the slowly moving encoder that makes them.

He et al., Momentum Contrast (MoCo), CVPR 2020, arXiv:1911.05722, section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from recbole_ext.modules.losses import exact


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
            keys: [B, D], of unit length; of more than Q the last ones.
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
            queries: [B, D], or several for a row [B, K, D], of which the nearest counts.
            ids: Items of the queries [B]: a key of the same item is no negative.
            temperature: Divides the similarities.

        Returns:
            -inf where there is no key, or one of the same item.
        """
        hidden = (ids[:, None] == self.ids) | ~self.filled()  # [B, Q]
        keys = self.keys.clone()  # what comes in before the backward pass must not change them
        similarity = exact(queries @ keys.T)  # [B, Q] or [B, K, Q]
        if similarity.dim() == 3:
            similarity = similarity.amax(1)  # [B, Q]
        return (similarity / temperature).masked_fill(hidden, -torch.inf)


def bank_info_nce(
    queries: Tensor, keys: Tensor, ids: Tensor, bank: MemoryBank, temperature: float = 0.07
) -> Tensor:
    """Contrast each query's own key with the keys of a bank; cosines.

    With several vectors for a query its similarity to a key is the largest of theirs, as in
    :func:`~recbole_ext.modules.losses.match_info_nce`.

    Args:
        queries: [B, D], or [B, K, D].
        keys: Their positives [B, D]; no gradient passes.
        ids: Items of both [B].
        bank: Negatives. It is not changed.
        temperature: Divides the cosines.

    Returns:
        Mean over the batch, a scalar; 0 with an empty bank.
    """
    queries, keys = exact(queries), exact(keys.detach())  # [B, D] or [B, K, D], and [B, D]
    queries, keys = F.normalize(queries, dim=-1), F.normalize(keys, dim=-1)
    several = queries if queries.dim() == 3 else queries.unsqueeze(1)  # [B, K, D]
    positive = (several * keys.unsqueeze(1)).sum(-1).amax(1, keepdim=True) / temperature  # [B, 1]
    logits = torch.cat([positive, bank.logits(queries, ids, temperature)], dim=1)  # [B, 1 + Q]
    return -F.log_softmax(logits, dim=1)[:, 0].mean()


class SlowCopy(nn.Module):
    """A module as it was a while ago: its weights follow, step by step, and never train.

    Args:
        module: The module that trains. Its weights are copied; what else it holds is shared.
        decay: What stays of a weight in each step, between 0 and 1.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = decay
        self._module = [module]  # in a list: it is no part of this one
        for name, parameter in module.named_parameters():
            self.register_buffer(_flat(name), parameter.detach().clone())

    @torch.no_grad()
    def follow(self) -> None:
        """Move the weights a little towards the module's: decay * slow + (1 - decay) * new."""
        for name, parameter in self._module[0].named_parameters():
            self.get_buffer(_flat(name)).lerp_(parameter, 1 - self.decay)

    @torch.no_grad()
    def forward(self, *inputs: Tensor) -> Tensor:
        """Return what the module gives with the slow weights."""
        module = self._module[0]
        slow = {name: self.get_buffer(_flat(name)) for name, _ in module.named_parameters()}
        return functional_call(module, slow, inputs)


def _flat(name: str) -> str:
    """Return a parameter's name as a buffer may be called, which has no dots."""
    return name.replace(".", "__")
