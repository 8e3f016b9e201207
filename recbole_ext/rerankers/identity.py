"""Control: stage one's own order. What it gives must be stage one's metrics exactly."""

from __future__ import annotations

from torch import Tensor

from recbole_ext.rerankers.base import Reranker
from recbole_ext.rerankers.batch import RerankBatch


class IdentityReranker(Reranker):
    """Gives the scores of stage one."""

    def score(self, batch: RerankBatch) -> Tensor:
        """Return ``batch.scores`` [B, N]."""
        return batch.scores
