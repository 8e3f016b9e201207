"""DuoRec as its authors wrote it (github.com/RuihongQiu/DuoRec), on RecBole's layers.

Three forwards at the full width of MAX_ITEM_LIST_LENGTH: the row, the row again under another
dropout mask, a row with the same target; all positions in every layer; RecBole's composite GELU and
torch's dropout. Same-target rows are drawn by our sampler here too: the authors' search for them is
quadratic, and it is not what is measured.
"""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.sequential_recommender import SASRec
from torch import Tensor, nn

from recbole_ext.modules.sampling import SameTargetSampler


class ReferenceDuoRec(SASRec):
    """RecBole's SASRec with the two views and the contrast ``us_x``."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.temperature, self.lmd_sem = config["temperature"], config["lmd_sem"]
        rows = dataset.inter_feat
        self.rows, self.lengths = rows[self.ITEM_SEQ], rows[self.ITEM_SEQ_LEN]  # [R, L], [R]
        self.same_target = SameTargetSampler(rows[self.POS_ITEM_ID])

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return cross-entropy plus the weighted contrast."""
        item_seq, lengths = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        h = self.forward(item_seq, lengths)  # [B, D]
        logits = h @ self.item_embedding.weight.T  # [B, N]
        loss = nn.functional.cross_entropy(logits, interaction[self.POS_ITEM_ID])
        again = self.forward(item_seq, lengths)  # [B, D]
        other = self.same_target(interaction["row_id"])  # [B]
        semantic = self.forward(self.rows[other], self.lengths[other])  # [B, D]
        return loss + self.lmd_sem * self._info_nce(again, semantic)

    def _info_nce(self, a: Tensor, b: Tensor) -> Tensor:
        n = len(a)
        z = torch.cat([a, b])  # [2B, D]
        sim = z @ z.T / self.temperature  # [2B, 2B]
        positive = torch.cat([sim.diagonal(n), sim.diagonal(-n)])[:, None]  # [2B, 1]
        mask = ~torch.eye(2 * n, dtype=torch.bool)  # [2B, 2B]
        index = torch.arange(2 * n)
        mask[index, index.roll(n)] = False
        logits = torch.cat([positive, sim[mask].view(2 * n, -1)], 1)  # [2B, 2B - 1]
        return nn.functional.cross_entropy(logits, torch.zeros(2 * n, dtype=torch.long))
