"""Scores of a slow reranker, kept by what made them: a rerank that was broken off goes on.

A folder holds ``scores.parquet`` (``row_hash``, ``scores``), and a file for each batch until they
are merged. It serves any number of rerankers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from recbole_ext.atomic import remove_leftovers
from recbole_ext.features.encoded import text_hash
from recbole_ext.features.kept_rows import KeptRows
from recbole_ext.locks import sole_use
from recbole_ext.rerankers.batch import RerankBatch, padded
from recbole_ext.types import UserError

FILE = "scores.parquet"
COLUMNS = ["row_hash", "scores"]
MOST_PARTS = 64


class ScoreCache:
    """Scores of rows by the hash of all that decides them.

    Args:
        folder: Where they are kept.
        source: Hash of what scores: model, weights, prompt and settings.
        every: Rows that are scored, and kept, at a time.

    Raises:
        UserError: The folder cannot be made, or a file in it is damaged.
    """

    def __init__(self, folder: Path, source: str, every: int = 16) -> None:
        self.folder, self.source, self.every = folder, source, every
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the folder {folder}: {error.strerror}; choose another cache_dir"
            ) from error
        self._kept = KeptRows(folder, FILE, COLUMNS, "its rows are scored anew")

    def score(self, score: Callable[[RerankBatch], Tensor], batch: RerankBatch) -> Tensor:
        """Return the scores [B, N] of rows, of which only new ones are scored.

        Args:
            score: A reranker's own, which sees some of the rows.
            batch: The rows.

        Raises:
            UserError: Another process keeps scores there.
        """
        hashes = [self._hash_of(batch, row) for row in range(len(batch))]
        new = [row for row, key in enumerate(hashes) if key not in self._kept.rows]
        if new:
            with sole_use(self.folder, what="the folder of scores"):
                remove_leftovers(self.folder)
                for begin in range(0, len(new), self.every):
                    self._add(score, batch, new[begin : begin + self.every], hashes)
                if len(self._kept.parts()) > MOST_PARTS:
                    self._kept.merge()
        rows = [self._kept.rows[key]["scores"] for key in hashes]
        return padded(rows, batch.scores.shape[1])

    def _add(
        self,
        score: Callable[[RerankBatch], Tensor],
        batch: RerankBatch,
        rows: list[int],
        hashes: list[str],
    ) -> None:
        found = score(batch.rows(rows)).tolist()
        kept = {}
        for row, scores in zip(rows, found, strict=True):
            values = [hashes[row], scores[: len(batch.candidates[row])]]
            kept[hashes[row]] = dict(zip(COLUMNS, values, strict=True))
        self._kept.add(kept)

    def _hash_of(self, batch: RerankBatch, row: int) -> str:
        return text_hash(f"{self.source} {row_text(batch, row)}")


def row_text(batch: RerankBatch, row: int) -> str:
    """Return all that a reranker can know of a row as one text."""
    history, candidates = batch.histories[row], batch.candidates[row]
    about = [
        *(batch.users[row], list(history), list(candidates)),
        [batch.text_of(item) for item in [*history, *candidates]],
        batch.scores[row, : len(candidates)].tolist(),
    ]
    return json.dumps(about)
