"""FTRagRec the published way, in RecBole's layers: every step encodes its rows and searches.

The original (see docs/ftragrec.md) loads a DuoRec encoder, freezes it, and in every step runs the
Transformer over the batch, searches a FAISS index of the training prefixes for the retriever's view
of each state, mixes the targets' embeddings into the state by attention, and adds two
cross-entropies over all items and a KL term. The layers are RecBole's, the histories are padded to
the full length, and the index is FAISS's exact one. The retriever is our small network in place of
the original's Transformer layer, which makes this reference faster than what was published.
"""

from __future__ import annotations

from typing import Any

import faiss
import torch
import torch.nn.functional as F
from recbole.model.sequential_recommender import SASRec
from torch import Tensor

from recbole_ext.modules.retriever import Retriever

SHARE = 0.35
"""Of the neighbours in the mixed state, where ``alpha`` is not given."""


class ReferenceFTRagRec(SASRec):
    """A frozen SASRec encoder, an index over all training rows, a retriever; no step is shared."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.requires_grad_(False)
        self.retriever = Retriever(self.hidden_size, inner_size=config["retriever_inner_size"])
        self.k = config["top_k"]
        self.alpha = SHARE if config["alpha"] is None else config["alpha"]
        self.weights = config["enhanced_rec_weight"], config["kl_small_weight"]
        self.targets = dataset.inter_feat[self.ITEM_ID]  # [R]

    @torch.no_grad()
    def build_index(self, loader: Any) -> None:
        """Fill the index by a pass over the training rows in their order, batch by batch."""
        self.eval()
        self.states = torch.cat(
            [self.forward(b[self.ITEM_SEQ], b[self.ITEM_SEQ_LEN]) for b in loader]
        )  # [R, D]
        self.index = faiss.IndexFlatIP(self.hidden_size)
        self.index.add(F.normalize(self.retriever(self.states), dim=1).numpy())

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return CE(h), CE(enhanced) and KL(retrieval || recommendation), weighted."""
        h = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])  # [B, D]
        labels = interaction[self.ITEM_ID]  # [B]
        query = F.normalize(self.retriever(h), dim=1)  # [B, D]
        _, near = self.index.search(query.detach().numpy(), self.k)  # [B, K]
        near = torch.from_numpy(near)
        similarity = self.retriever.similarity(h, self.states[near])  # [B, K]
        log_weights = F.log_softmax(similarity / self.retriever.temperature, dim=1)  # [B, K]
        items = self.item_embedding.weight  # [N, D]
        target_emb = items[self.targets[near]]  # [B, K, D]
        retrieved = torch.einsum("bk,bkd->bd", log_weights.exp(), target_emb)  # [B, D]
        enhanced = (1 - self.alpha) * h + self.alpha * retrieved  # [B, D]
        liked = torch.einsum("bd,bkd->bk", h, target_emb)  # [B, K]
        kl = F.kl_div(
            F.log_softmax(liked, dim=1), log_weights, log_target=True, reduction="batchmean"
        )
        return (
            F.cross_entropy(h @ items.T, labels),
            self.weights[0] * F.cross_entropy(enhanced @ items.T, labels),
            self.weights[1] * kl,
        )
