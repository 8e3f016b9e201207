"""Paired statistics over users: bootstrap intervals, sign-flip tests, Holm's correction.

The unit is the user: values are averaged over seeds first, so that the seeds of one user are not
taken for independent observations.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

_MAX_CELLS = 1 << 22
"""Cells of one block of resamples [R, U]: 32 MiB of doubles."""


def per_user(ranks: pd.DataFrame, topk: list[int], user: str = "user_id") -> pd.DataFrame:
    """Return one row per user and a column per metric, by RecBole's definitions.

    Args:
        ranks: One row per positive of the test, with ``rank`` from 1 up.
        topk: Cut-offs k of recall@k, ndcg@k, mrr@k, hit@k and precision@k.
        user: Name of the column of users.
    """
    columns = {}
    groups = ranks[user]
    n_positives = groups.groupby(groups).size()
    for k in topk:
        inside = ranks["rank"] <= k
        gain = np.where(inside, 1 / np.log2(ranks["rank"] + 1.0), 0.0)
        ideal = np.cumsum(1 / np.log2(np.arange(k) + 2.0))  # [k], of 1..k positives
        found = inside.groupby(groups).sum()
        columns[f"recall@{k}"] = found / n_positives
        columns[f"ndcg@{k}"] = (
            pd.Series(gain, ranks.index).groupby(groups).sum()
            / ideal[np.minimum(n_positives, k) - 1]
        )
        columns[f"mrr@{k}"] = (
            pd.Series(np.where(inside, 1 / ranks["rank"], 0.0), ranks.index).groupby(groups).max()
        )
        columns[f"hit@{k}"] = (found > 0).astype(float)
        columns[f"precision@{k}"] = found / k
    return pd.DataFrame(columns)


def bootstrap_interval(
    values: np.ndarray, level: float = 0.95, n_resamples: int = 2000, seed: int = 2020
) -> tuple[float, float]:
    """Return the percentile interval of the mean of values [U] under resampling of users.

    For a paired comparison give the users' differences. Source: Efron and Tibshirani, An
    Introduction to the Bootstrap (1993), section 13.3.
    """
    values = np.asarray(values, dtype=float)
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            values[rng.integers(len(values), size=(n, len(values)))].mean(1)
            for n in _blocks(n_resamples, len(values))
        ]
    )  # [R]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sign_flip_p(differences: np.ndarray, n_resamples: int = 10_000, seed: int = 2020) -> float:
    """Return the two-sided p of ``mean difference is 0`` when each sign is a coin's.

    All sign patterns are enumerated where there are no more than ``n_resamples``; otherwise they
    are drawn, and the observed one counts as drawn, so that p is never 0 (Phipson and Smyth, 2010).

    Args:
        differences: One model's value less the other's, by user, [U].
        n_resamples: Sign patterns to draw, and the most to enumerate.
        seed: Seed of the draws.
    """
    differences = np.asarray(differences, dtype=float)
    differences = differences[differences != 0]  # their sign changes nothing
    n_users = len(differences)
    if n_users == 0:
        return 1.0
    # equal sums may differ in the last bits, of the terms: where they cancel, the sum has none
    least = abs(differences.sum()) - 1e-12 * abs(differences).sum()
    if 2**n_users <= n_resamples:
        bits = np.arange(2**n_users)[:, None] >> np.arange(n_users) & 1  # [2^U, U]
        return float((abs((2 * bits - 1) @ differences) >= least).mean())
    rng = np.random.default_rng(seed)
    n_extreme = sum(
        int((abs((2.0 * rng.integers(2, size=(n, n_users)) - 1) @ differences) >= least).sum())
        for n in _blocks(n_resamples, n_users)
    )
    return (1 + n_extreme) / (1 + n_resamples)


def holm(p_values: list[float]) -> list[float]:
    """Return the p values adjusted for their number, in the order given (Holm, 1979)."""
    adjusted, highest = [1.0] * len(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _blocks(n_rows: int, width: int) -> Iterator[int]:
    block = max(1, _MAX_CELLS // max(1, width))
    for start in range(0, n_rows, block):
        yield min(block, n_rows - start)
