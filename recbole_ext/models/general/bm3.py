"""BM3: users, items and features drawn to each other, without negatives.

Zhou et al. (WWW 2023, arXiv:2207.05969). H is the mean of the layers of a graph convolution over
ids, an item's id once more on top. A predictor q, the same for all, draws each vector to what
dropout leaves of its counterpart, which stands still: no second network, no negatives. With
C(a, b) = 1 - mean cos(a, b) the losses are C(q(h_u), h_i~) + C(q(h_i), h_u~), the lengths of H,
and of each modality m C(q(m), h_i~) + C(q(m), m~). Scores are q(h_u) . q(h_i).

The stored vectors are parameters (``train_features``), as in the public code. An item without a
feature has no part in that modality's losses: the mean is over the items of the batch that have it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_ext.models.general.feature_recommender import FeatureRecommender
from recbole_ext.models.refused_values import check_fraction, check_not_negative
from recbole_ext.modules.graph_conv import SparseGraph, mean_of_layers
from recbole_ext.modules.losses import consistency, embedding_norm
from recbole_ext.types import Losses


class BM3(FeatureRecommender):
    """Bootstrapped vectors of users, items and stored features."""

    input_type = InputType.POINTWISE  # rows as they are: RecBole draws no negatives

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = config["embedding_size"]
        self.n_layers = config["n_layers"]
        self.reg_weight = config["reg_weight"]
        self.contrastive_weight = config["contrastive_weight"]
        self.target_dropout_prob = config["target_dropout_prob"]
        self.graph = SparseGraph(self._graph_of(dataset))
        self.user_embedding, self.item_embedding = self._embeddings(size)
        self.predictor = nn.Linear(size, size)
        maps = {kind: nn.Linear(table.size, size) for kind, table in self.tables.items()}
        for layer in (self.predictor, *maps.values()):
            nn.init.xavier_normal_(layer.weight)
        self.project = nn.ModuleDict(maps)

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant."""
        super().check_settings(config, train_dataset)
        check_not_negative(config, ["contrastive_weight"])
        check_fraction(config, ["target_dropout_prob"])

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Return H of all users [U, D] and of all items [N, D]."""
        ids = torch.cat([self.user_embedding.weight, self.item_embedding.weight])  # [U + N, D]
        mean = mean_of_layers(ids, self.n_layers, self.graph)  # [U + N, D]
        users, items = mean.split([self.n_users, self.n_items])
        return users, items + self.item_embedding.weight

    def encode(self) -> tuple[Tensor, Tensor]:
        """Return the vectors of all users [U, D] and of all items [N, D]."""
        users, items = self.propagate()
        return self.predictor(users), self.predictor(items)

    def losses(self, interaction: Any) -> Losses:
        """Return ``rec``, ``reg`` and one named after each modality."""
        user, item = interaction[self.USER_ID], interaction[self.ITEM_ID]  # [B] each
        users, items = self.propagate()
        h_u, h_i = users[user], items[item]  # [B, D] each
        target_u, target_i = self._target(h_u), self._target(h_i)  # [B, D] each
        rec = consistency(self.predictor(h_u), target_i)
        rec = rec + consistency(self.predictor(h_i), target_u)
        # row 0 of each is padding
        found = {"rec": rec, "reg": self.reg_weight * embedding_norm(users[1:], items[1:])}
        for kind, table in self.tables.items():
            feature, has_it = self.project[kind](table(item)), table.present[item]  # [B, D], [B]
            view = self.predictor(feature)  # [B, D]
            pull = consistency(view, target_i, has_it)
            pull = pull + consistency(view, self._target(feature), has_it)
            found[kind] = self.contrastive_weight * pull
        return found

    def _target(self, vectors: Tensor) -> Tensor:
        """Return what dropout leaves of vectors [B, D], standing still."""
        return F.dropout(vectors.detach(), self.target_dropout_prob, self.training)
