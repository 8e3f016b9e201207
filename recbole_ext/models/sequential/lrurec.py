"""LRURec: linear recurrent units for sequential recommendation (Yue et al., WSDM 2024).

arXiv:2310.02367. A state decays by a complex factor and takes in the next item: training sees a
whole history at once, serving adds an item in a time that does not depend on what came before. The
next item is the one whose embedding has the largest product with the state, plus its bias.

What differs from the authors' code: sequences stand on the left and are padded on the right, as in
RecBole; the softmax leaves the padding item out; a history beyond the limit is cut into windows
that together predict each of its items once, where theirs takes the last window, and further ones
from twice the limit on; weight decay reaches biases and LayerNorm too.
"""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_ext.data.bucketing import BucketedTrainDataLoader
from recbole_ext.data.causal import N_SCORED, CausalTrainDataLoader, scored_positions
from recbole_ext.data.prefix_dataset import PrefixDataset
from recbole_ext.models.base import ExtRecommender
from recbole_ext.models.refused_values import (
    DROPOUTS,
    check_fields,
    check_fraction,
    check_positive,
    check_words,
)
from recbole_ext.modules.histories import appended
from recbole_ext.modules.losses import item_cross_entropy
from recbole_ext.modules.lru import LRUEncoder
from recbole_ext.types import Losses

CHOICES = {"train_on": ("causal", "prefix")}
"""Settings that take one of a few words."""


class LRURec(ExtRecommender, SequentialRecommender):
    """Linear recurrent units, trained by the softmax over all items at every position."""

    dataset_class = PrefixDataset
    history_fields = ()

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.check_settings(config, dataset)
        self.train_on = config["train_on"]
        self.softmax_memory = config["softmax_memory"]
        self.encoder = LRUEncoder(
            n_items=self.n_items,
            hidden_size=config["hidden_size"],
            n_layers=config["n_layers"],
            inner_size=config["inner_size"],
            hidden_dropout_prob=config["hidden_dropout_prob"],
            unit_dropout_prob=config["attn_dropout_prob"],
            hidden_act=config["hidden_act"],
            layer_norm_eps=config["layer_norm_eps"],
            initializer_range=config["initializer_range"],
        )
        std = config["initializer_range"]
        self.item_bias = nn.Parameter(torch.empty(self.n_items))
        nn.init.trunc_normal_(self.item_bias, std=std, a=-2 * std, b=2 * std)

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant."""
        check_words(config, CHOICES)
        check_positive(config, ("softmax_memory",))
        check_fraction(config, DROPOUTS)

    @classmethod
    def train_loader_class(cls, config: Any) -> type:
        """Return the loader that feeds ``train_on``."""
        return CausalTrainDataLoader if config["train_on"] == "causal" else BucketedTrainDataLoader

    def encode(self, interaction: Any) -> Tensor:
        """Return the state of each history, [B, D]."""
        return self.encoder(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])

    def losses(self, interaction: Any) -> Losses:
        """Return ``rec``, the cross-entropy over all items."""
        if self.train_on == "causal":
            states, targets = self._scored(interaction)  # [P, D], [P]
        else:
            states, targets = self.encode(interaction), interaction[self.POS_ITEM_ID]  # [B, D], [B]
        weight = self.encoder.item_embedding.weight  # [N, D]
        return {
            "rec": item_cross_entropy(states, weight, targets, self.softmax_memory, self.item_bias)
        }

    def predict(self, interaction: Any) -> Tensor:
        """Return the score of one item for each history, [B]."""
        items = interaction[self.ITEM_ID]  # [B]
        item_emb = self.encoder.item_embedding(items)  # [B, D]
        return (self.encode(interaction) * item_emb).sum(-1) + self.item_bias[items]  # [B]

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores of all items for each history, [B, N]; the padding item never ranks."""
        return self.score(self.encode(interaction))

    def score(self, states: Tensor) -> Tensor:
        """Return the scores of all items after states [B, D], as ``encoder.step`` gives them."""
        scores = states @ self.encoder.item_embedding.weight.T + self.item_bias  # [B, N]
        scores[:, 0] = -torch.inf
        return scores

    def _scored(self, interaction: Any) -> tuple[Tensor, Tensor]:
        """Return the states [P, D] of the windows' scored positions, and what follows them [P]."""
        check_fields(self, interaction, [N_SCORED])
        item_seq, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        states = self.encoder.states(item_seq, lengths)  # [B, L, D]
        following = appended(item_seq, lengths, interaction[self.POS_ITEM_ID])[:, 1:]  # [B, L]
        scored, _ = scored_positions(lengths, interaction[N_SCORED], item_seq.size(1))  # [B, L]
        return states[scored], following[scored]
