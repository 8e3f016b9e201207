"""The toy of ``loop.py`` as a model that the real trainer trains: the same parts and losses."""

from __future__ import annotations

from typing import Any

import torch
from callbacks.loop import Toy, toy_scores
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_ext.models.base import ExtRecommender


class ToySeq(ExtRecommender, SequentialRecommender):
    """Regresses a number and its square, which stand for the next item, on the last item."""

    family = "sequential"
    refresh_memory, calibrate = Toy.refresh_memory, Toy.calibrate

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        toy = Toy()
        self.item_embedding = nn.Embedding(self.n_items, 4)
        self.encoder, self.head, self.aux_head = toy.encoder, toy.head, toy.aux_head
        self.register_buffer("memory", toy.memory, persistent=False)
        self.register_buffer("mix", toy.mix)
        self.n_refreshed = self.n_calibrated = 0
        self.register_buffer("value", torch.linspace(-1, 1, self.n_items))

    def encode(self, interaction: Any) -> Tensor:
        last = interaction[self.ITEM_SEQ_LEN][:, None] - 1  # [B, 1]
        last_item = interaction[self.ITEM_SEQ].gather(1, last).squeeze(1)  # [B]
        return self.encoder(self.item_embedding(last_item)) - 0.1 * self.memory  # [B, 8]

    def losses(self, interaction: Any) -> dict[str, Tensor]:
        hidden, value = self.encode(interaction), self.value[interaction[self.POS_ITEM_ID]]
        rec = (self.head(hidden).squeeze(1) - value).square().mean()
        aux = (self.aux_head(hidden).squeeze(1) - value.square()).square().mean()
        self.score_sets = toy_scores(self, hidden, value)
        return {"rec": rec * (1 + self.mix), "aux": aux}

    def full_sort_predict(self, interaction: Any) -> Tensor:
        scores = -(self.head(self.encode(interaction)) - self.value).square()  # [B, N]
        scores[:, 0] = -torch.inf
        return scores

    def predict(self, interaction: Any) -> Tensor:
        item = interaction[self.ITEM_ID][:, None]  # [B, 1]
        return self.full_sort_predict(interaction).gather(1, item).squeeze(1)  # [B]
