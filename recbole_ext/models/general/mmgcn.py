"""MMGCN: a graph convolution for each modality, whose outputs are averaged.

Wei et al. (MM 2019): in the graph of a modality users begin as a learned preference and items as
their feature. Each layer takes the mean of the neighbours, h = lrelu(mean(x W)), puts it beside the
node's own state, x^ = lrelu(x V) + id, and combines them, x' = lrelu([h | x^] G). Images are mapped
to ``image_hidden_size`` first, texts enter as they are.

What differs from the public code, which leaves its id embeddings and preferences out of the
optimizer and of its checkpoints, and scores with the vectors of the last training batch: here both
are parameters, and scores are of the weights as they are. Every modality's preferences are in the
penalty, not the images' alone.

An item without a feature is in that feature's graph without a content of its own: its first state
is zero, the first layer's means are over the neighbours that have one, and from the second layer on
it is what its users and its id make of it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.models.general.feature_recommender import FeatureRecommender
from recbole_ext.modules.feature_table import FeatureTable
from recbole_ext.modules.graph_conv import SparseGraph
from recbole_ext.modules.losses import bpr
from recbole_ext.types import Losses


class ModalityGraph(nn.Module):
    """The layers of one modality.

    Args:
        size: Width F of its vectors.
        n_users: U.
        hidden_size: Width that the vectors are mapped to; 0 takes them as they are.
        embedding_size: D.
        n_layers: How many layers.
    """

    def __init__(
        self, size: int, n_users: int, hidden_size: int, embedding_size: int, n_layers: int
    ) -> None:
        super().__init__()
        self.project = nn.Linear(size, hidden_size) if hidden_size else nn.Identity()
        width = hidden_size or size
        self.preference = nn.Parameter(torch.empty(n_users, width))
        widths = [width, *[embedding_size] * (n_layers - 1)]
        self.convolve = nn.ModuleList(nn.Linear(w, w, bias=False) for w in widths)
        self.own = nn.ModuleList(nn.Linear(w, embedding_size) for w in widths)
        self.combine = nn.ModuleList(nn.Linear(w + embedding_size, embedding_size) for w in widths)
        nn.init.xavier_normal_(self.preference)
        for layer in (*self.convolve, *self.own, self.combine[0]):  # as the public code does
            nn.init.xavier_normal_(layer.weight)

    def forward(self, ids: Tensor, table: FeatureTable, graph: SparseGraph) -> Tensor:
        """Return the states of users and items [U + N, D].

        Args:
            ids: Their id embeddings [U + N, D].
            table: The items' vectors.
            graph: Who took what, with entries of 1.
        """
        items = self.project(table.weight) * table.present.unsqueeze(1)  # [N, W]
        x = F.normalize(torch.cat([self.preference, items]))  # [U + N, W]
        speaks = F.pad(table.present, (len(self.preference), 0), value=True)  # [U + N]
        counts = graph(speaks.to(x.dtype).unsqueeze(1)).clamp_min(1)  # [U + N, 1]
        degrees = graph.csr.crow.diff().clamp_min(1).unsqueeze(1)  # [U + N, 1]
        for convolve, own, combine in zip(self.convolve, self.own, self.combine, strict=True):
            h = F.leaky_relu(graph(convolve(x)) / counts)  # [U + N, W]
            x = F.leaky_relu(own(x)) + ids  # [U + N, D]
            x = F.leaky_relu(combine(torch.cat([h, x], 1)))  # [U + N, D]
            counts = degrees  # now everybody has a state
        return x


class MMGCN(FeatureRecommender):
    """A graph convolution for each stored feature."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = config["embedding_size"]
        self.reg_weight = config["reg_weight"]
        hidden_sizes = {"text": 0, "image": config["image_hidden_size"]}
        self.graph = SparseGraph(self._graph_of(dataset, is_normalised=False))
        ids = nn.init.xavier_normal_(torch.empty(self.n_users + self.n_items, size))
        self.user_embedding, self.item_embedding = (
            nn.Embedding.from_pretrained(part.clone(), freeze=False)
            for part in ids.split([self.n_users, self.n_items])
        )
        self.modalities: Any = nn.ModuleDict(
            {
                kind: ModalityGraph(
                    table.size, self.n_users, hidden_sizes[kind], size, config["n_layers"]
                )
                for kind, table in self.tables.items()
            }
        )

    def encode(self) -> tuple[Tensor, Tensor]:
        """Return the vectors of all users [U, D] and of all items [N, D]."""
        ids = torch.cat([self.user_embedding.weight, self.item_embedding.weight])  # [U + N, D]
        states = [
            modality(ids, self.tables[kind], self.graph)
            for kind, modality in self.modalities.items()
        ]  # [U + N, D] each
        users, items = torch.stack(states).mean(0).split([self.n_users, self.n_items])
        return users, items

    def losses(self, interaction: Any) -> Losses:
        """Return ``rec``, the pairs, and ``reg``, the squares of ids and preferences."""
        user, pos, neg = (
            interaction[field] for field in (self.USER_ID, self.ITEM_ID, self.NEG_ITEM_ID)
        )  # [B] each
        users, items = self.encode()
        scores = (users[user] * items[pos]).sum(1), (users[user] * items[neg]).sum(1)  # [B] each
        squares = self.user_embedding(user).square().mean()
        squares = squares + self.item_embedding(torch.cat([pos, neg])).square().mean()
        for modality in self.modalities.values():
            squares = squares + modality.preference[1:].square().mean()  # user 0 is padding
        return {
            "rec": bpr(scores[0], scores[1].unsqueeze(1)),
            "reg": self.reg_weight * squares,
        }
