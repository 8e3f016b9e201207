"""DuoRec: contrastive sequential recommendation (Qiu et al., WSDM 2022, arXiv:2110.05730).

A causal Transformer encodes the history; the next item is the one whose embedding has the largest
product with the last state. Two further views of each training row keep the representations apart:
the same sequence under another dropout mask, and another sequence that leads to the same item.
InfoNCE draws the two views together.

What differs from the paper: ``mask_same_target`` is off, as in the authors' code (the text removes
in-batch negatives with the same target); the same-target rows are drawn from a CSR table that is
built in milliseconds instead of a quadratic search with a cache on disk; the softmax leaves the
padding item out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recbole_ext.data.bucketing import BucketedTrainDataLoader
from recbole_ext.data.causal import N_SCORED, CausalTrainDataLoader, scored_positions
from recbole_ext.data.prefix_dataset import ROW_ID, PrefixDataset
from recbole_ext.data.rows import histories_of
from recbole_ext.models.base import ExtRecommender
from recbole_ext.models.refused_values import check_fields, check_positive, check_words
from recbole_ext.models.sas_encoder import build_sas_encoder
from recbole_ext.modules.histories import Histories, Windows
from recbole_ext.modules.item_softmax import ItemProposal, sampled_cross_entropy
from recbole_ext.modules.losses import info_nce, item_cross_entropy
from recbole_ext.modules.sampling import SameTargetSampler
from recbole_ext.modules.transformer import trim
from recbole_ext.types import Losses, UserError

CHOICES = {
    "contrast": ("us_x", "un", "su", "us"),
    "sim": ("dot", "cos"),
    "train_on": ("prefix", "causal"),
    "softmax": ("full", "sampled"),
    "sampled_by": ("uniform", "popularity"),
}
"""Settings that take one of a few words."""


class DuoRec(ExtRecommender, SequentialRecommender):
    """SASRec's encoder trained with cross-entropy and dropout or same-target contrast."""

    dataset_class = PrefixDataset
    history_fields = ()
    row_items: Tensor
    row_start: Tensor
    row_stop: Tensor
    target_rows: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.check_settings(config, dataset)
        self.contrast = config["contrast"]
        self.sim = config["sim"]
        self.train_on = config["train_on"]
        self.temperature = config["temperature"]
        self.lmd = config["lmd"]
        self.lmd_sem = config["lmd_sem"]
        self.mask_same_target = config["mask_same_target"]
        self.softmax_memory = config["softmax_memory"]
        self.n_sampled = config["n_sampled"] if config["softmax"] == "sampled" else None
        self.encoder = build_sas_encoder(config, self.n_items, self.max_seq_length)
        self._keep_rows(dataset)
        if self.n_sampled:
            counts = torch.bincount(self.target_rows, minlength=self.n_items)  # [N]
            self.proposal = ItemProposal(counts, config["sampled_by"])

    @classmethod
    def check_settings(cls, config: Any, train_dataset: Any) -> None:
        """Refuse settings that cannot be meant."""
        check_words(config, CHOICES)
        check_positive(config, ("temperature", "n_sampled", "softmax_memory"))
        contrast, dropouts = config["contrast"], ("hidden_dropout_prob", "attn_dropout_prob")
        if contrast != "su" and not any(config[key] for key in dropouts):
            raise UserError(
                f"contrast: {contrast} needs a second view, which dropout makes, and "
                f"{' and '.join(dropouts)} are 0; raise one of them, or set contrast: su"
            )

    @classmethod
    def train_loader_class(cls, config: Any) -> type:
        """Return the loader that feeds ``train_on``."""
        return CausalTrainDataLoader if config["train_on"] == "causal" else BucketedTrainDataLoader

    def encode(self, interaction: Any) -> Tensor:
        """Return the state of each history, [B, D]."""
        return self.encoder(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])

    def losses(self, interaction: Any) -> Losses:
        """Return ``rec`` and, weighted, ``cl`` (contrast us_x) or ``cl_un`` and ``cl_su``."""
        needed = [ROW_ID, N_SCORED] if self.train_on == "causal" else [ROW_ID]
        check_fields(self, interaction, needed)
        return (
            self._causal_losses(interaction)
            if self.train_on == "causal"
            else self._prefix_losses(interaction)
        )

    def predict(self, interaction: Any) -> Tensor:
        """Return the score of one item for each history, [B]."""
        item_emb = self.encoder.item_embedding(interaction[self.ITEM_ID])  # [B, D]
        return (self.encode(interaction) * item_emb).sum(-1)  # [B]

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores of all items for each history, [B, N]; the padding item never ranks."""
        scores = self.encode(interaction) @ self.encoder.item_embedding.weight.T  # [B, N]
        scores[:, 0] = -torch.inf
        return scores

    def _keep_rows(self, dataset: Any) -> None:
        """Keep the training rows, of which same-target views are drawn, outside the state dict."""
        rows = dataset.inter_feat
        length, target = rows[self.ITEM_SEQ_LEN], rows[self.POS_ITEM_ID]  # [R] each
        item_seq = Histories.of(histories_of(rows, self.ITEM_SEQ), length)
        items, windows = item_seq.values.to(torch.int32), item_seq.windows
        self.register_buffer("row_items", items, persistent=False)  # [M + 1]
        self.register_buffer("row_start", windows.start, persistent=False)  # [R]
        self.register_buffer("row_stop", windows.stop, persistent=False)  # [R]
        self.register_buffer("target_rows", target, persistent=False)  # [R]
        self.same_target = SameTargetSampler(target)

    def _encode_rows(self, row_id: Tensor) -> Tensor:
        """Encode training rows by their ids: [B] -> [B, D]."""
        windows = Windows(self.row_start, self.row_stop, self.max_seq_length).take(row_id)
        item_seq = Histories(self.row_items, windows)[...]  # [B, L]
        return self.encoder(item_seq, windows.length)

    def _prefix_losses(self, interaction: Any) -> Losses:
        """One row, one prediction."""
        lengths = interaction[self.ITEM_SEQ_LEN]  # [B]
        item_seq = trim(interaction[self.ITEM_SEQ], lengths)  # [B, L]
        embedded = self.encoder.embed(item_seq)  # [B, L, D], shared by h and h'
        h = self.encoder.encode_embedded(embedded, lengths)  # [B, D]
        rec = self._next_item(h, interaction[self.POS_ITEM_ID])
        again = partial(self.encoder.encode_embedded, embedded, lengths)
        return {"rec": rec, **self._contrast(h, again, interaction[ROW_ID])}

    def _causal_losses(self, interaction: Any) -> Losses:
        """Predict at each scored position of a window; contrast as many rows as windows."""
        lengths = interaction[self.ITEM_SEQ_LEN]  # [B]
        states = self.encoder.states(trim(interaction[self.ITEM_SEQ], lengths))  # [B, L, D]
        scored, back = scored_positions(
            lengths, interaction[N_SCORED], states.size(1)
        )  # 2 x [B, L]
        # The rows of a window stand just before the one that carries it.
        row_id = (interaction[ROW_ID][:, None] - back)[scored]  # [P]
        h = states[scored]  # [P, D]
        rec = self._next_item(h, self.target_rows[row_id])
        drawn = torch.randperm(len(h), device=h.device)[: len(states)]  # [B]
        rows = row_id[drawn]  # [B]
        return {"rec": rec, **self._contrast(h[drawn], lambda: self._encode_rows(rows), rows)}

    def _next_item(self, h: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of states [B, D] and the items [B] that follow them."""
        item_weight = self.encoder.item_embedding.weight  # [N, D]
        if not self.n_sampled:
            return item_cross_entropy(h, item_weight, targets, self.softmax_memory)
        sampled, log_q = self.proposal(self.n_sampled)  # [S], [S]
        return sampled_cross_entropy(
            h, item_weight, targets, sampled, log_q + math.log(self.n_sampled)
        )

    def _contrast(self, h: Tensor, view: Callable[[], Tensor], row_id: Tensor) -> Losses:
        """Return the weighted contrastive losses of some training rows.

        Args:
            h: Their states [B, D].
            view: Encodes them once more, under another dropout mask: () -> [B, D].
            row_id: Their ids [B].
        """
        nce = partial(
            info_nce,
            temperature=self.temperature,
            sim=self.sim,
            same=self.target_rows[row_id] if self.mask_same_target else None,
        )
        if self.contrast == "us_x":
            return {"cl": self.lmd_sem * nce(view(), self._encode_rows(self.same_target(row_id)))}
        found: Losses = {}
        if self.contrast in ("un", "us"):
            found["cl_un"] = self.lmd * nce(h, view())
        if self.contrast in ("su", "us"):
            found["cl_su"] = self.lmd_sem * nce(h, self._encode_rows(self.same_target(row_id)))
        return found
