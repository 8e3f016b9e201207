"""Control: the items with the most training interactions first, whoever asks."""

from __future__ import annotations

from torch import Tensor

from recbole_ext.rerankers.base import Reranker
from recbole_ext.rerankers.batch import RerankBatch, padded


class PopularityReranker(Reranker):
    """Scores an item by its training interactions."""

    def score(self, batch: RerankBatch) -> Tensor:
        """Return the counts [B, N]."""
        counts = self.corpus.counts()
        return padded([[counts[i] for i in row] for row in batch.candidates], batch.scores.shape[1])
