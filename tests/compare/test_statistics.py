"""Paired statistics against closed forms, enumeration, a hand-worked example and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recbole_ext.compare.statistics import bootstrap_interval, holm, per_user, sign_flip_p


def test_metrics_of_hand_worked_users():
    ranks = pd.DataFrame({"user_id": ["a", "b", "b", "c"], "rank": [1, 2, 9, 6]})
    table = per_user(ranks, [5])
    assert table.loc["a"].tolist() == [1, 1, 1, 1, 0.2]
    gain, ideal = 1 / math.log2(3), 1 + 1 / math.log2(3)
    assert table.loc["b"].tolist() == pytest.approx([0.5, gain / ideal, 0.5, 1, 0.2])
    assert table.loc["c"].tolist() == [0, 0, 0, 0, 0]


def test_interval_is_near_normal_theory():
    values = np.random.default_rng(0).normal(0.3, 1, 2000)
    half = 1.959964 * values.std() / math.sqrt(len(values))
    low, high = bootstrap_interval(values, n_resamples=4000)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(300):
        low, high = bootstrap_interval(rng.normal(0.1, 1, 100), n_resamples=500, seed=trial)
        covered += low <= 0.1 <= high
    spread = math.sqrt(0.95 * 0.05 / 300)
    assert covered / 300 == pytest.approx(0.95, abs=4 * spread)


def test_small_samples_are_enumerated():
    differences = np.array([0.5, -0.2, 0.9, 0.4, 0.0, 1.1, -0.1])
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product([-1, 1], repeat=7)
    ]
    expected = np.mean([s >= abs(differences.sum()) - 1e-9 for s in sums])
    assert sign_flip_p(differences) == pytest.approx(expected)


def test_drawn_p_is_near_scipys():
    differences = np.random.default_rng(2).normal(0.12, 1, 200)
    reference = stats.permutation_test(
        (differences, np.zeros(200)),
        lambda x, y: (x - y).mean(),
        permutation_type="samples",
        n_resamples=9999,
        random_state=5,
    ).pvalue
    assert sign_flip_p(differences) == pytest.approx(reference, abs=0.02)


def test_both_sides_count_alike_and_no_difference_is_no_evidence():
    differences = np.random.default_rng(3).normal(0.5, 1, 100)
    assert sign_flip_p(differences) == sign_flip_p(-differences) < 0.01
    assert sign_flip_p(np.zeros(9)) == 1


def test_gains_that_cancel_are_no_evidence_however_they_are_rounded():
    """In tenths their sum is some 1e-17 and that of others 0, in whole numbers all of it is 0."""
    assert sign_flip_p(np.array([0.2, 0.1, -0.1, -0.2])) == 1
    differences = np.tile([0.1, 0.2, 0.3, -0.1, -0.2, -0.3], 20)
    assert abs(differences.sum()) > 0 and sign_flip_p(differences) == 1


def test_a_drawn_p_is_never_0():
    assert sign_flip_p(np.ones(500), n_resamples=99) == pytest.approx(1 / 100)


def test_holm_by_hand():
    # sorted 0.01 x 4, 0.02 x 3, 0.025 x 2 (0.05, but no less than before), 0.5 x 1
    assert holm([0.025, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
