"""BERT4RecCloze: BERT4Rec as its paper has it (Sun et al., CIKM 2019, arXiv:1904.06690).

A Transformer that looks both ways fills in hidden items of a history; for a recommendation the
hidden item is one that is appended. RecBole's model of the same paper keeps its name, ``BERT4Rec``.

What differs from RecBole's: a row is a whole history and not each of its prefixes, hidden anew in
every epoch; the first position is trained like the others; at test time the mask is appended, and
only a history that fills the limit loses its oldest item for it. What differs from the authors'
code: positions are drawn when they are needed, not ten times beforehand; the number of hidden items
is not fixed; there are no further rows whose last item alone is hidden.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_ext.data.causal import CausalTrainDataLoader
from recbole_ext.data.prefix_dataset import PrefixDataset
from recbole_ext.models.base import ExtRecommender
from recbole_ext.models.refused_values import (
    DROPOUTS,
    check_fraction,
    check_positive,
    check_shares,
)
from recbole_ext.models.sas_encoder import build_sas_encoder
from recbole_ext.modules.attention import ACTIVATIONS
from recbole_ext.modules.cloze import appended_within, draw_hidden, hide
from recbole_ext.modules.losses import item_cross_entropy
from recbole_ext.modules.transformer import by_length
from recbole_ext.types import Losses


class BERT4RecCloze(ExtRecommender, SequentialRecommender):
    """A bidirectional Transformer trained by the softmax over all items at hidden positions."""

    dataset_class = PrefixDataset
    history_fields = ()
    train_loader_class = CausalTrainDataLoader

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.check_settings(config, dataset)
        self.mask_ratio = config["mask_ratio"]
        self.mask_random_prob = config["mask_random_prob"]
        self.mask_keep_prob = config["mask_keep_prob"]
        self.softmax_memory = config["softmax_memory"]
        self.mask_item = self.n_items
        self.encoder = build_sas_encoder(config, self.n_items + 1, self.max_seq_length)
        hidden_size = config["hidden_size"]
        self.activation = ACTIVATIONS[config["hidden_act"]]
        self.output_dense = nn.Linear(hidden_size, hidden_size)
        self.output_norm = nn.LayerNorm(hidden_size, eps=config["layer_norm_eps"])
        self.item_bias = nn.Parameter(torch.zeros(self.n_items))
        nn.init.normal_(self.output_dense.weight, std=config["initializer_range"])
        nn.init.zeros_(self.output_dense.bias)

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant."""
        check_positive(config, ("softmax_memory", "mask_ratio"))
        check_shares(config, ("mask_ratio",))
        check_shares(config, ("mask_random_prob", "mask_keep_prob"))
        check_fraction(config, DROPOUTS)

    @property
    def item_weight(self) -> Tensor:
        """Item embeddings [N, D], without that of the mask."""
        return self.encoder.item_embedding.weight[: self.n_items]

    def encode(self, interaction: Any) -> Tensor:
        """Return what each history says of the item after it, [B, D]."""
        item_seq, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        masks = torch.full_like(lengths, self.mask_item)  # [B]
        item_seq, lengths = appended_within(item_seq, lengths, masks)  # [B, L], [B]

        def at_mask(seq: Tensor, n: Tensor) -> Tensor:
            return self._attend(seq, n, last=n - 1)  # [B, D]

        return self._output(by_length(at_mask, item_seq, lengths))

    def losses(self, interaction: Any) -> Losses:
        """Return ``rec``, the cross-entropy over all items at the hidden positions."""
        item_seq, lengths = appended_within(
            interaction[self.ITEM_SEQ],
            interaction[self.ITEM_SEQ_LEN],
            interaction[self.POS_ITEM_ID],
        )  # [B, L], [B]
        hidden = draw_hidden(lengths, item_seq.size(1), self.mask_ratio)  # [B, L]
        seen = hide(item_seq, hidden, self.mask_item, self.mask_random_prob, self.mask_keep_prob)

        def padded(seq: Tensor, n: Tensor) -> Tensor:
            return F.pad(self._attend(seq, n), (0, 0, 0, item_seq.size(1) - seq.size(1)))

        states = by_length(padded, seen, lengths)[hidden]  # [P, D]
        rec = item_cross_entropy(
            self._output(states),
            self.item_weight,
            item_seq[hidden],
            self.softmax_memory,
            self.item_bias,
        )
        return {"rec": rec}

    def predict(self, interaction: Any) -> Tensor:
        """Return the score of one item for each history, [B]."""
        items = interaction[self.ITEM_ID]  # [B]
        item_emb = self.encoder.item_embedding(items)  # [B, D]
        return (self.encode(interaction) * item_emb).sum(-1) + self.item_bias[items]  # [B]

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores of all items for each history, [B, N]; the padding item never ranks."""
        scores = self.encode(interaction) @ self.item_weight.T + self.item_bias  # [B, N]
        scores[:, 0] = -torch.inf
        return scores

    def _attend(self, item_seq: Tensor, lengths: Tensor, last: Tensor | None = None) -> Tensor:
        """Return all states [B, L, D], or those at ``last`` [B, D]; none sees the padding."""
        real = torch.arange(item_seq.size(1), device=lengths.device) < lengths[:, None]  # [B, L]
        x = self.encoder.dropout(self.encoder.embed(item_seq))  # [B, L, D]
        return self.encoder.trm_encoder(x, last, real[:, None, None, :])

    def _output(self, states: Tensor) -> Tensor:
        return self.output_norm(self.activation(self.output_dense(states)))  # [..., D]
