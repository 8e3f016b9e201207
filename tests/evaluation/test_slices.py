"""Metrics of parts of a test, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_ext.evaluation.slices import by_count, slice_metrics


def test_each_positive_counts_by_itself():
    ranks = np.array([1, 3, 11, 2])
    slices = {"all": np.ones(4, bool), "odd": ranks % 2 == 1, "none": np.zeros(4, bool)}
    table = slice_metrics(ranks, slices, [2, 10])
    assert table.loc["all", "recall@2"] == 0.5 and table.loc["odd", "n"] == 3
    wanted = (1 + 1 / np.log2(4)) / 3
    assert table.loc["odd", "ndcg@10"] == pytest.approx(wanted)
    assert table.loc["odd", "mrr@10"] == pytest.approx((1 + 1 / 3) / 3)
    assert table.loc["none", "n"] == 0 and np.isnan(table.loc["none", "mrr@2"])


def test_cold_and_warm_are_all():
    counts = np.array([0, 1, 4, 5, 90])
    slices = by_count(counts)
    assert [mask.tolist() for mask in slices.values()] == [
        [True, False, False, False, False],
        [False, True, True, False, False],
        [False, False, False, True, True],
    ]
    assert list(slices) == ["never seen", "cold (1 to 4)", "warm (5 or more)"]
