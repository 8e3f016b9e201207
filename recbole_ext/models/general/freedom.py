"""FREEDOM: a frozen graph of items that are alike, and a thinned graph of who took what.

Zhou and Shen (MM 2023, arXiv:2211.06924). Items are the mean of the layers of a graph convolution
over ids (LightGCN) and, added to it, one hop of their ids over the graph of the items nearest by
their features, which is built once. In each epoch the graph of users and items keeps a share of its
edges, those of popular users and items least; an evaluation has all of them. Beside the pairs' own
loss the users are drawn to the mapped features of their items.

The stored vectors stand still; with ``train_features: True`` they move, as in the public code (the
graph of items does not).

An item without a feature is no neighbour of anybody by that feature and has none by it: its weights
go to the other feature's neighbours, and without any it has LightGCN's part alone. A pair counts in
a feature's loss if both of its items have it.

An epoch begins with ``train()``, which RecBole's trainer calls before the first batch, and ours
too: the next batch draws the edges, from torch's generator, whose state a resumed run continues.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_ext.models.general.feature_recommender import FeatureRecommender
from recbole_ext.models.refused_values import check_fraction, check_positive, check_shares
from recbole_ext.modules.graph_conv import (
    Csr,
    SparseGraph,
    keep_edges,
    mean_of_layers,
    multiply,
)
from recbole_ext.modules.item_graph import item_graph
from recbole_ext.modules.losses import bpr
from recbole_ext.types import Losses, UserError


class FREEDOM(FeatureRecommender):
    """LightGCN on a thinned graph, and the neighbours of items in stored features."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size, image_weight = config["embedding_size"], config["image_weight"]
        self.n_layers = config["n_layers"]
        self.reg_weight = config["reg_weight"]
        self.edge_dropout_prob = config["edge_dropout_prob"]
        self.user_embedding, self.item_embedding = self._embeddings(size)
        # no bias: it would be the same in both scores of a pair
        self.project = nn.ModuleDict(
            {kind: nn.Linear(table.size, size, bias=False) for kind, table in self.tables.items()}
        )
        weights = {"text": 1 - image_weight, "image": image_weight}
        weights = weights if len(self.tables) > 1 else dict.fromkeys(weights, 1.0)
        features = [
            (table.weight.detach().to(self.device), table.present.to(self.device), weights[kind])
            for kind, table in self.tables.items()
        ]
        self.item_graph = item_graph(features, config["n_neighbours"])
        self.graph = SparseGraph(self._graph_of(dataset))
        self._epoch_graph: Csr | None = None

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant."""
        super().check_settings(config, train_dataset)
        check_positive(config, ["n_neighbours"])
        check_fraction(config, ["edge_dropout_prob"])
        check_shares(config, ["image_weight"])
        if config["train_neg_sample_args"].get("dynamic"):  # RecBole calls eval() and train()
            raise UserError(
                "train_neg_sample_args: FREEDOM keeps its edges for an epoch, and dynamic "
                "negatives would draw them anew in each batch; leave dynamic out"
            )

    def encode(self) -> tuple[Tensor, Tensor]:
        """Return the vectors of all users [U, D] and of all items [N, D]."""
        graph = self._graph_in_use()
        ids = torch.cat([self.user_embedding.weight, self.item_embedding.weight])  # [U + N, D]
        mean = mean_of_layers(ids, self.n_layers, lambda x: multiply(x, graph))  # [U + N, D]
        users, items = mean.split([self.n_users, self.n_items])
        return users, items + self.item_graph(self.item_embedding.weight)

    def losses(self, interaction: Any) -> Losses:
        """Return ``rec``, the pairs, and one named after each modality."""
        user, pos, neg = (
            interaction[field] for field in (self.USER_ID, self.ITEM_ID, self.NEG_ITEM_ID)
        )  # [B] each
        users, items = self.encode()
        users = users[user]  # [B, D]
        found = {"rec": _pairs(users, items[pos], items[neg])}
        for kind, table in self.tables.items():
            project, both = self.project[kind], table.present[pos] & table.present[neg]  # [B]
            pairs = _pairs(users, project(table(pos)), project(table(neg)), both)
            found[kind] = self.reg_weight * pairs
        return found

    def train(self, mode: bool = True) -> FREEDOM:
        """Set the mode; where training goes on, the next batch draws the edges anew."""
        self._epoch_graph = None
        return super().train(mode)

    def _graph_in_use(self) -> Csr:
        if not self.training or not self.edge_dropout_prob:
            return self.graph.csr
        if self._epoch_graph is None:
            share = 1 - self.edge_dropout_prob
            self._epoch_graph = keep_edges(self.graph.csr, self.n_users, share)
        return self._epoch_graph


def _pairs(user: Tensor, positive: Tensor, negative: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the pairwise loss of vectors [B, D] each, over the pairs that count [B]."""
    scores = (user * positive).sum(1), (user * negative).sum(1)  # [B] each
    return bpr(scores[0], scores[1].unsqueeze(1), None if mask is None else mask.unsqueeze(1))
