"""Users as vectors: pooled from the items of a prefix, or with a text that was written of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.modules.content import linear_map
from recbole_ext.modules.feature_source import FeatureSource
from recbole_ext.modules.fusion import missing_vector
from recbole_ext.modules.pooling import TokenPooling


class PooledProfile(nn.Module):
    """The items of a prefix -> one vector. It can contain no target: the prefix has none.

    Args:
        hidden_size: D.
        max_length: Longest prefix.
        pooling: ``mean``, or ``attention``: weights by what an item is and how long ago it was.
    """

    def __init__(self, hidden_size: int, max_length: int, pooling: str = "attention") -> None:
        super().__init__()
        self.pool = TokenPooling(hidden_size, pooling)
        self.recency = nn.Parameter(torch.zeros(max_length)) if pooling == "attention" else None
        self.missing = missing_vector(hidden_size)
        self.project = nn.Linear(hidden_size, hidden_size, bias=False)
        nn.init.eye_(self.project.weight)  # at first a user is where the items are

    def forward(self, items: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Pool the items that have a content.

        Args:
            items: Their vectors [B, L, D].
            mask: Which of them count [B, L].
            lengths: Of the prefixes [B]; the last item stands at ``length - 1``.

        Returns:
            [B, D].
        """
        bias = None
        if self.recency is not None:
            place = torch.arange(items.shape[1], device=items.device)  # [L]
            age = (lengths[:, None] - 1 - place).clamp(0, len(self.recency) - 1)  # [B, L]
            bias = self.recency[age]  # [B, L]
        pooled = self.project(self.pool(items, mask, bias))  # [B, D]
        return torch.where(mask.any(1, keepdim=True), pooled, self.missing)


class StoredProfile(nn.Module):
    """A user's text beside the pooled prefix, for the rows that may see it.

    Args:
        source: The stored vectors of the users.
        hidden_size: D.
        like: The map of the items' texts, from which that of the users' begins if it fits.
    """

    def __init__(self, source: FeatureSource, hidden_size: int, like: nn.Linear | None) -> None:
        super().__init__()
        self.source = source
        self.project = linear_map(source.size, hidden_size)
        if like is not None and like.weight.shape == self.project.weight.shape:
            self.project.load_state_dict(like.state_dict())
        self.pool = TokenPooling(hidden_size, "mean" if source.n_tokens == 1 else "attention")
        self.gate = nn.Linear(2 * hidden_size, 1, bias=False)
        nn.init.zeros_(self.gate.weight)  # at first half of each

    def forward(self, pooled: Tensor, users: Tensor, usable: Tensor) -> Tensor:
        """Return the vectors of users [B, D].

        Args:
            pooled: Of their prefixes [B, D].
            users: Internal ids [B].
            usable: Which rows may see the text [B].
        """
        values, mask = self.source(users)  # [B, T, F], [B, T]
        text, mask = self.project(values), mask & usable[:, None]  # [B, T, D], [B, T]
        text = self.pool(text, mask)  # [B, D]
        pooled = F.normalize(pooled, dim=-1, eps=1e-6)  # [B, D]
        share = self.gate(torch.cat([text, pooled], -1)).sigmoid()  # [B, 1]
        share = share * mask.any(1, keepdim=True)  # [B, 1]
        return pooled + share * (text - pooled)  # [B, D]
