"""MIND's metrics: AUC, MRR and nDCG of each impression, averaged over impressions.

They are those of the data's own ``evaluate.py``, where each score of an impression is another. An
impression has what an order by chance would have on average over candidates of the same score: a
model that scores all alike has an AUC of .5, whatever order the rows are in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from recbole_ext.types import UserError

TOPK = (5, 10)


def impression_metrics(
    impression: np.ndarray, scores: np.ndarray, labels: np.ndarray, topk: Sequence[int] = TOPK
) -> tuple[dict[str, float], int]:
    """Return the means over impressions, and how many impressions were left out of them.

    An impression of one class, all clicked or none, is left out: it has no AUC, and without a click
    no MRR and no nDCG either. Each other counts once, however many candidates it has.

    Args:
        impression: Which impression a candidate belongs to [P], in any order.
        scores: Of the candidates [P].
        labels: 1 where it was clicked and 0 where not [P].
        topk: Cut-offs of nDCG.

    Returns:
        ``auc``, ``mrr``, ``mrr1`` and ``ndcg@<k>``; the number of impressions of one class.

    Raises:
        UserError: As :func:`per_impression`, or every impression is of one class.
    """
    table = per_impression(impression, scores, labels, topk)
    counted = table.dropna(subset=["auc"])
    if not len(counted):
        raise UserError(
            f"none of {len(table)} impressions has both a click and a candidate without one, and "
            "there is no metric of others; are the labels those of the impressions?"
        )
    return counted.mean().to_dict(), len(table) - len(counted)


def per_impression(
    impression: np.ndarray, scores: np.ndarray, labels: np.ndarray, topk: Sequence[int] = TOPK
) -> pd.DataFrame:
    """Return the metrics of each impression, a row each, by its id; NaN where it is of one class.

    AUC is the share of pairs (clicked, not clicked) in the right order. MRR is the mean of 1/place
    over *all* that were clicked; MRR1 is 1/place of the first alone.

    Args:
        impression: Which impression a candidate belongs to [P], in any order.
        scores: Of the candidates [P].
        labels: 1 where it was clicked and 0 where not [P].
        topk: Cut-offs of nDCG.

    Raises:
        UserError: A score is not a number, or a label is neither 0 nor 1.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, np.float64)  # [P] each
    if n_bad := int(np.isnan(scores).sum()):
        raise UserError(
            f"{n_bad} of {len(scores)} scores are not numbers (NaN): training has diverged; train "
            "anew with a lower learning_rate or with clip_grad_norm"
        )
    if not np.isin(labels, (0, 1)).all():
        raise UserError("a label of an impression is neither 0 nor 1; see LABEL_FIELD")
    ids, row = np.unique(np.asarray(impression), return_inverse=True)  # [I], [P]
    order = np.lexsort((-scores, row))  # [P], the best of each impression first
    row, scores, labels = row[order], scores[order], labels[order]  # [P] each
    size = np.bincount(row, minlength=len(ids))  # [I]
    clicks = np.bincount(row, labels, minlength=len(ids))  # [I]
    begin, end = _tied(row, scores, size.cumsum() - size)  # [P] each

    def total(gains: np.ndarray) -> np.ndarray:
        """Sum the gain of a place [M] over the clicks [I], places of the same score shared."""
        upto = np.concatenate([[0.0], gains.cumsum()])  # [M + 1]
        shared = (upto[end] - upto[begin]) / (end - begin)  # [P]
        return np.bincount(row, shared * labels, minlength=len(ids))  # [I]

    place = np.arange(1, size.max(initial=0) + 1)  # [M]
    discount = 1 / np.log2(place + 1)  # [M]
    best = np.concatenate([[0.0], discount.cumsum()])  # [M + 1]
    n_clicks = clicks.astype(int)  # [I]
    with np.errstate(invalid="ignore", divide="ignore"):  # of one class, and NaN below
        # a click beats what comes after it, but for the clicks among these
        beaten = clicks * size - total(place.astype(float)) - clicks * (clicks - 1) / 2  # [I]
        table = {"auc": beaten / (clicks * (size - clicks)), "mrr": total(1 / place) / clicks}
        table["mrr1"] = _first(row, labels, begin, end, len(ids))
        for k in topk:
            gains = np.where(place <= k, discount, 0.0)  # [M]
            table[f"ndcg@{k}"] = total(gains) / best[np.minimum(n_clicks, k)]
    found = pd.DataFrame(table, index=pd.Index(ids, name="impression"))
    found[(clicks == 0) | (clicks == size)] = np.nan
    return found


def _first(
    row: np.ndarray, labels: np.ndarray, begin: np.ndarray, end: np.ndarray, n: int
) -> np.ndarray:
    """Return 1/place of the first click of each impression [I]; 0 without one.

    Of g candidates of the same score, c of them clicked, the first click is the j-th with
    probability C(g - j, c - 1) / C(g, c), in an order by chance.

    Args:
        row: Impressions in order [P].
        labels: 1 where it was clicked [P].
        begin: Of the places that a candidate shares, the one before [P].
        end: The last of them [P].
        n: How many impressions there are, I.
    """
    clicked = np.flatnonzero(labels)  # [C]
    key = row[clicked] * (len(row) + 1) + begin[clicked]  # [C], falling scores: in order
    _, head, n_tied = np.unique(key, return_index=True, return_counts=True)  # [G] each
    of, best = np.unique(row[clicked[head]], return_index=True)  # [I'] each
    c, at = n_tied[best], clicked[head[best]]  # [I'] each
    g, before = (end - begin)[at], begin[at]  # [I'] each
    chance, found = c / g, np.zeros(n)  # [I'], [I]
    for j in range(1, int((g - c).max(initial=-1)) + 2):
        found[of] += chance / (before + j)
        chance = chance * np.maximum(g - j - c + 1, 0) / np.maximum(g - j, 1)  # [I']
    return found


def _tied(row: np.ndarray, scores: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places [P] that a candidate shares: from the one, up to before the other.

    Args:
        row: Impressions in order [P].
        scores: Falling within each [P].
        first: Where each impression begins [I].
    """
    is_new = np.ones(len(row), bool)  # [P]
    is_new[1:] = (row[1:] != row[:-1]) | (scores[1:] != scores[:-1])
    starts = np.flatnonzero(is_new)  # [G]
    group = is_new.cumsum() - 1  # [P]
    ends = np.append(starts[1:], len(row))  # [G]
    return starts[group] - first[row], ends[group] - first[row]
