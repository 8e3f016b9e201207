"""Metrics of parts of a test: warm and cold items, with a feature and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

COLD = 5
"""Training interactions below which an item counts as cold."""


def slice_metrics(
    ranks: np.ndarray, slices: Mapping[str, np.ndarray], topk: Sequence[int]
) -> pd.DataFrame:
    """Return recall, NDCG and MRR of each slice; every positive counts by itself.

    Args:
        ranks: Rank of each positive of the test [P], from 1.
        slices: Name -> which positives [P].
        topk: Cut-offs.

    Returns:
        A row for each slice: ``n``, then a column for each metric; NaN where it is empty.
    """
    rows = {}
    for name, mask in slices.items():
        mine = ranks[mask].astype(float)  # [p]
        row = {"n": float(len(mine))}
        for k in topk:
            inside = mine <= k  # [p]
            gains = {
                "recall": inside.astype(float),
                "ndcg": np.where(inside, 1 / np.log2(mine + 1), 0.0),
                "mrr": np.where(inside, 1 / mine, 0.0),
            }
            row |= {f"{m}@{k}": v.mean() if len(v) else np.nan for m, v in gains.items()}
        rows[name] = row
    return pd.DataFrame(rows).T


def by_count(counts: np.ndarray, cold: int = COLD) -> dict[str, np.ndarray]:
    """Return the slices of cold and warm items.

    Args:
        counts: Training interactions of each positive's item [P].
        cold: Fewer than so many are cold.
    """
    return {
        "never seen": counts == 0,
        f"cold (1 to {cold - 1})": (counts > 0) & (counts < cold),
        f"warm ({cold} or more)": counts >= cold,
    }
