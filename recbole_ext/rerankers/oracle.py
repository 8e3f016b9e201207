"""Control: the targets first. Its recall is that of the candidates, the ceiling of any reranker."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_ext.rerankers.base import Reranker, target_places
from recbole_ext.rerankers.batch import RerankBatch, padded


class OracleReranker(Reranker):
    """Scores all else 0 and targets above it, no two alike: tied ones would share a worse rank."""

    needs_targets = True

    def score(self, batch: RerankBatch) -> Tensor:
        """Return 1, 2, ... for targets and 0 for others [B, N]."""
        scores = padded([[0.0] * len(row) for row in batch.candidates], batch.scores.shape[1])
        for row, places in enumerate(target_places(batch)):
            scores[row, places] = torch.arange(len(places), 0, -1, dtype=torch.float32)
        return scores
