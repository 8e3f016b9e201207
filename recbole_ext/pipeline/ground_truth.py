"""Sampled candidates: one that the user took among others that the user never did.

It measures how well a reranker tells a good item from arbitrary ones, whatever stage one finds. Its
numbers are no full ranking's: with N candidates an order by chance has a recall of K/N at K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from recbole_ext.rerankers.batch import RerankBatch
from recbole_ext.rerankers.random import generator_of
from recbole_ext.types import UserError


def sampled(
    rows: RerankBatch,
    n: int,
    catalogue: Sequence[str],
    known: Sequence[set[str]],
    seed: int,
    score: Callable[[RerankBatch], Tensor] | None = None,
) -> RerankBatch:
    """Return each user's next item among ``n - 1`` that the user took in no split.

    What is drawn depends on the seed and the user alone.

    Args:
        rows: With targets; of several the first is the positive.
        n: Candidates of each user, N.
        catalogue: All items.
        known: All items that each user took, in any split.
        seed: Of the draws.
        score: Stage one's scores of such rows [B, N], by which they stand; equal by default, and
            then they stand as drawn.

    Raises:
        UserError: Some user leaves too few items to draw from.
    """
    assert rows.targets is not None
    place = {item: i for i, item in enumerate(catalogue)}
    candidates = []
    for user, targets, taken in zip(rows.users, rows.targets, known, strict=True):
        is_free = np.ones(len(catalogue), dtype=bool)  # [items]
        is_free[[place[item] for item in taken]] = False
        free = np.flatnonzero(is_free)  # [free]
        if len(free) < n - 1:
            raise UserError(
                f"rerank_top_k: {n} sampled candidates are {n - 1} items that the user never took, "
                f"and to user '{user}' only {len(free)} are left; lower rerank_top_k"
            )
        drawn = generator_of(seed, f"negatives of {user}")
        items = [catalogue[i] for i in drawn.choice(free, n - 1, replace=False)]
        items.append(targets[0])
        candidates.append([items[i] for i in drawn.permutation(n)])
    found = replace(
        rows,
        candidates=candidates,
        scores=torch.zeros(len(rows), n),
        targets=[targets[:1] for targets in rows.targets],
    )
    return found if score is None else _ordered(found, score(found.without_targets()))


def _ordered(rows: RerankBatch, scores: Tensor) -> RerankBatch:
    best = scores.argsort(dim=1, descending=True, stable=True)  # [B, N]
    lists = [
        [row[place] for place in places]
        for row, places in zip(rows.candidates, best.tolist(), strict=True)
    ]
    return replace(rows, candidates=lists, scores=scores.gather(1, best))
