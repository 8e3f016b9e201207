"""The rank of every positive item of a test, user by user: what paired comparisons are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbole_ext.atomic import replacing
from recbole_ext.trainer.processes import gathered
from recbole_ext.types import UserError

_MAX_CELLS = 1 << 25
"""Cells of one comparison block [positives, N]: 32 MiB of booleans."""

_SORT_FROM = 5
"""Positives of a row, on average, from which on sorting it is cheaper than comparing each."""


def ranks_of(scores: Tensor, rows: Tensor, items: Tensor) -> Tensor:
    """Return the rank of each (row, item): one more than the number of items that score higher.

    Items that score the same share the middle of their places (rounded down to the better one), so
    that a model which gives every item one score ranks nothing first.

    Args:
        scores: Scores, [B, N].
        rows: Row of each positive, [P].
        items: Item of each positive, [P].

    Raises:
        UserError: A score of these rows is not a number: it compares with none, so that all ranks
            would look better than they are.
    """
    return ranks_and_ties(scores, rows, items)[0]


def ranks_and_ties(scores: Tensor, rows: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Return what :func:`ranks_of` does, and the number of other items of the same score, [P]."""
    rows, items = rows.to(scores.device), items.to(scores.device)
    bad = scores.amax(1).isnan()[rows]  # [P]; a maximum is NaN where any value is
    if bad.any():
        raise UserError(
            f"the model's scores are not numbers (NaN) for {int(bad.sum())} of {len(rows)} test "
            "rows: training has diverged; train anew with a lower learning_rate or with "
            "clip_grad_norm"
        )
    own = scores[rows, items]  # [P]
    if len(rows) > _SORT_FROM * len(scores):
        return _places(scores, rows, own)
    block = max(1, _MAX_CELLS // scores.shape[1])
    parts = zip(rows.split(block), own.split(block), strict=True)
    found = [_ranks(scores[r], s[:, None]) for r, s in parts]
    ranks, ties = (torch.cat(column) for column in zip(*found, strict=True))
    return ranks, ties  # [P] each


def _ranks(scores: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Return ranks and ties of own [P, 1] in scores [P, N], by comparing with all of them."""
    higher = (scores > own).sum(1)  # [P]
    ties = (scores == own).sum(1) - 1  # [P], the positive itself left out
    return 1 + higher + ties // 2, ties


def _places(scores: Tensor, rows: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Return ranks and ties of own [P] in their rows of scores [B, N], each sorted once."""
    order = rows.argsort()  # [P]
    count = rows.bincount(minlength=len(scores))  # [B]
    first = count.cumsum(0) - count  # [B]
    column = torch.empty_like(rows)  # [P], a positive's number in its row
    column[order] = torch.arange(len(rows), device=rows.device) - first[rows[order]]
    wanted = scores.new_zeros(len(scores), int(count.max()))  # [B, M]
    wanted[rows, column] = own
    ascending = scores.sort(1).values  # [B, N]
    below = torch.searchsorted(ascending, wanted)[rows, column]  # [P]
    not_above = torch.searchsorted(ascending, wanted, right=True)[rows, column]  # [P]
    ties = not_above - below - 1  # [P]
    return 1 + scores.shape[1] - not_above + ties // 2, ties


class RankRecorder:
    """Collects user, item, rank and ties of every positive over the batches of one evaluation."""

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, scores: Tensor, users: Tensor, positive_u: Tensor, positive_i: Tensor) -> None:
        """Record a batch: scores [B, N], its users [B], row and item of each positive [P]."""
        # a pair that the test has twice is one positive, as in RecBole's metrics
        rows, items = torch.stack([positive_u.cpu(), positive_i.cpu()]).unique(dim=1)  # [P] each
        ranks, ties = ranks_and_ties(scores, rows, items)  # [P] each
        self._parts.append((users.cpu()[rows], items, ranks.cpu(), ties.cpu()))

    def gather(self) -> None:
        """Take in what the other processes have recorded; all must call it."""
        self._parts = [part for parts in gathered(self._parts) for part in parts]

    def write(self, path: Path, dataset: Any) -> None:
        """Write a row per positive as parquet, atomically.

        Its columns: ``user_id`` and ``item_id`` (external tokens), ``rank``, and ``ties``, the
        number of other items of the same score: ``rank`` is the middle of the places they share.
        """
        users, items, ranks, ties = (
            torch.cat(column).numpy() for column in zip(*self._parts, strict=True)
        )
        table = pd.DataFrame(
            {
                dataset.uid_field: np.asarray(
                    dataset.field2id_token[dataset.uid_field][users], dtype=str
                ),
                dataset.iid_field: np.asarray(
                    dataset.field2id_token[dataset.iid_field][items], dtype=str
                ),
                "rank": ranks.astype(np.int32),
                "ties": ties.astype(np.int32),
            }
        )
        with replacing(path) as temporary:
            table.to_parquet(temporary, index=False)

    def __len__(self) -> int:
        return sum(len(ranks) for _, _, ranks, _ in self._parts)
