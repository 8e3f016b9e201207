"""VBPR: matrix factorisation whose items are in part what they look like or are called.

He and McAuley (AAAI 2016, arXiv:1510.01784), in the form that multimodal recommenders are compared
with (MMRec): an item is [Q_i | W F_i + b], where F is the stored text beside the stored image, and
a user is one vector of twice the width. ``use_bias: True`` is the paper's own form,
s = beta_i + g_u . g_i + t_u . (E F_i) + beta' . F_i, whose two biases are in no penalty.

What an item lacks adds nothing: of two features the one that it has speaks alone, and an item
without any is scored by Q_i (and beta_i), without b, as if no user cared for what it looks like.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_ext.models.general.feature_recommender import FeatureRecommender
from recbole_ext.modules.losses import bpr, embedding_norm
from recbole_ext.types import Losses


class VBPR(FeatureRecommender):
    """Matrix factorisation over ids and stored features."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size, width = config["embedding_size"], sum(table.size for table in self.tables.values())
        self.reg_weight = config["reg_weight"]
        self.use_bias = config["use_bias"]
        self.user_embedding = nn.Embedding(self.n_users, 2 * size)
        self.item_embedding = nn.Embedding(self.n_items, size)
        self.project = nn.Linear(width, size, bias=not self.use_bias)
        for table in (self.user_embedding, self.item_embedding):
            nn.init.xavier_uniform_(table.weight)
        nn.init.xavier_normal_(self.project.weight)
        if not self.use_bias:
            nn.init.zeros_(self.project.bias)
        else:
            self.item_bias = nn.Parameter(torch.zeros(self.n_items))
            self.feature_bias = nn.Parameter(torch.zeros(width))

    def encode(self) -> tuple[Tensor, Tensor]:
        """Return the vectors of all users [U, 2D] and of all items [N, 2D], or a bias wider."""
        ids = torch.arange(self.n_items, device=self.item_embedding.weight.device)  # [N]
        users, (items, biases) = self.user_embedding.weight, self._items(ids)
        if biases is None:
            return users, items
        ones = torch.ones_like(users[:, :1])  # [U, 1]
        return torch.cat([users, ones], 1), torch.cat([items, biases.unsqueeze(1)], 1)

    def losses(self, interaction: Any) -> Losses:
        """Return ``rec``, the pairs, and ``reg``, the lengths of their vectors."""
        user = self.user_embedding(interaction[self.USER_ID])  # [B, 2D]
        positive, pos_bias = self._items(interaction[self.ITEM_ID])  # [B, 2D], [B]
        negative, neg_bias = self._items(interaction[self.NEG_ITEM_ID])  # [B, 2D], [B]
        scores = (user * positive).sum(1), (user * negative).sum(1)  # [B] each
        if pos_bias is not None and neg_bias is not None:
            scores = scores[0] + pos_bias, scores[1] + neg_bias
        reg = self.reg_weight * embedding_norm(user, positive, negative)
        return {"rec": bpr(scores[0], scores[1].unsqueeze(1)), "reg": reg}

    def _items(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the vectors of items, [n] -> [n, 2D], and their biases [n] where there are any."""
        features = torch.cat([table(ids) for table in self.tables.values()], 1)  # [n, F]
        has_any = torch.stack([table.present[ids] for table in self.tables.values()]).any(0)  # [n]
        content = self.project(features) * has_any.unsqueeze(1)  # [n, D]
        items = torch.cat([self.item_embedding(ids), content], 1)  # [n, 2D]
        if not self.use_bias:
            return items, None
        return items, self.item_bias[ids] + features @ self.feature_bias  # [n]
