"""Metrics of reranked candidates, per user: what stage two makes of what stage one has found.

Per-user values are summed over users and divided once, so that no batch counts more than another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbole_ext.evaluation.ranks import ranks_and_ties

METRICS = ("recall", "ndcg", "hit", "mrr")


def target_ranks(scores: Tensor, places: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return the rank of each target among its user's candidates, from 1.

    Candidates of one score share the middle of their places, 1.5 for the first two: a reranker
    that cannot tell them apart earns what an order by chance would, and none is rounded in its
    favour.

    Args:
        scores: Of the candidates [B, N], -inf at padding.
        places: Of each row's targets among its candidates; a target that is none has no rank.
    """
    row = torch.tensor([r for r, mine in enumerate(places) for _ in mine], dtype=torch.long)  # [P]
    item = torch.tensor([place for mine in places for place in mine], dtype=torch.long)  # [P]
    ranks: list[list[float]] = [[] for _ in places]
    if len(row):
        middle, ties = ranks_and_ties(scores, row, item)  # [P] each
        exact = middle + (ties % 2) / 2  # [P], the half that `middle` is rounded down by
        for r, rank in zip(row.tolist(), exact.tolist(), strict=True):
            ranks[r].append(rank)
    return ranks


def user_metrics(
    ranks: Sequence[Sequence[float]], n_targets: Sequence[int], topk: Sequence[int]
) -> pd.DataFrame:
    """Return recall, NDCG, hit and MRR of each user, a column ``<metric>@<k>`` each.

    Args:
        ranks: Of the targets of each user that are candidates, [U].
        n_targets: Targets of each user, candidates or not, [U].
        topk: Cut-offs.
    """
    row = np.repeat(np.arange(len(ranks)), [len(mine) for mine in ranks])  # [P]
    rank = np.array([one for mine in ranks for one in mine], dtype=np.float64)  # [P]
    wanted = np.asarray(n_targets)  # [U]
    columns = {}
    for k in topk:
        inside = rank <= k  # [P]
        gained, at = row[inside], rank[inside]  # [p] each
        found = np.bincount(gained, minlength=len(ranks))  # [U]
        dcg = np.bincount(gained, 1 / np.log2(1 + at), minlength=len(ranks))  # [U]
        best = np.cumsum(1 / np.log2(np.arange(2, k + 2)))  # [k]
        first = np.zeros(len(ranks))  # [U]
        np.maximum.at(first, gained, 1 / at)
        columns[f"recall@{k}"] = found / wanted
        columns[f"ndcg@{k}"] = dcg / best[np.minimum(wanted, k) - 1]
        columns[f"hit@{k}"] = (found > 0).astype(float)
        columns[f"mrr@{k}"] = first
    return pd.DataFrame({f"{m}@{k}": columns[f"{m}@{k}"] for m in METRICS for k in topk})


def blocks(
    before: pd.DataFrame, after: pd.DataFrame, is_hit: np.ndarray
) -> dict[str, dict[str, float]]:
    """Return the means of the three blocks that are always reported together.

    Args:
        before: Metrics of each user by stage one's order, [U] rows.
        after: The same by the reranker's order.
        is_hit: Users of whose targets at least one is a candidate, [U].

    Returns:
        ``stage_one``; ``conditional``, the reranker on the users with a hit alone; ``overall``,
        where a user without a hit counts 0: the conditional value times the share of hits.
    """
    n_hits = max(int(is_hit.sum()), 1)
    return {
        "stage_one": _over(before.sum(), len(before)),
        "conditional": _over(after[is_hit].sum(), n_hits),
        "overall": _over(after.sum(), len(after)),
    }


def _over(sums: Mapping[str, float], n: int) -> dict[str, float]:
    return {name: float(value) / n for name, value in sums.items()}


def ceiling(places: Sequence[Sequence[int]], n_targets: Sequence[int], k: int) -> float:
    """Return the recall of the first ``k`` candidates: no reranker of these can have more."""
    shares = [
        sum(place < k for place in mine) / n for mine, n in zip(places, n_targets, strict=True)
    ]
    return sum(shares) / len(shares)


def random_baseline(n: int, topk: Sequence[int]) -> dict[str, float]:
    """Return what an order by chance has on average with one target among n candidates.

    Every rank is as likely: recall and hit are K/n, the others the mean of their gains.
    """
    rank = np.arange(1, n + 1)  # [n]
    gains = {
        "recall": np.ones(n),
        "ndcg": 1 / np.log2(1 + rank),
        "hit": np.ones(n),
        "mrr": 1 / rank,
    }
    return {
        f"{metric}@{k}": float(gain[: min(k, n)].sum()) / n
        for metric, gain in gains.items()
        for k in topk
    }
