"""Control: an order by chance, the floor that every reranker must beat."""

from __future__ import annotations

import hashlib

import numpy as np
from torch import Tensor

from recbole_ext.rerankers.base import Reranker
from recbole_ext.rerankers.batch import RerankBatch, padded


class RandomReranker(Reranker):
    """Draws by the seed and the user alone: no batch, order or other user changes it."""

    def score(self, batch: RerankBatch) -> Tensor:
        """Return uniform scores [B, N]."""
        rows = []
        for user, row in zip(batch.users, batch.candidates, strict=True):
            drawn = generator_of(self.settings["seed"], user).random(len(row), dtype=np.float32)
            # by token: the order of the candidates changes nothing
            rows.append(drawn[np.argsort(np.argsort(row))].tolist())  # [n]
        return padded(rows, batch.scores.shape[1])


def generator_of(seed: int, user: str) -> np.random.Generator:
    """Return the generator of one user; Python's own hash of a text differs between processes."""
    digest = hashlib.sha256(f"{seed}\0{user}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
