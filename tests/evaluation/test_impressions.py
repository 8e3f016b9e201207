"""MIND's metrics against the definitions, written out for one impression at a time."""

from __future__ import annotations

from itertools import permutations
from math import log2

import numpy as np
import pytest

from recbole_ext.evaluation.impressions import impression_metrics, per_impression
from recbole_ext.types import UserError

NAMES = ("auc", "mrr", "mrr1", "ndcg@5", "ndcg@10")


def of_order(labels):
    """Metrics of labels in the order of their scores, the best first, from the definitions."""
    clicked = [place for place, label in enumerate(labels, 1) if label]
    others = [place for place, label in enumerate(labels, 1) if not label]
    pairs = [c < o for c in clicked for o in others]
    found = [sum(pairs) / len(pairs), sum(1 / c for c in clicked) / len(clicked)]
    found.append(1 / clicked[0])
    for k in (5, 10):
        dcg = sum(1 / log2(1 + c) for c in clicked if c <= k)
        found.append(dcg / sum(1 / log2(1 + c) for c in range(1, min(k, len(clicked)) + 1)))
    return found


@pytest.fixture(scope="module")
def drawn():
    """300 impressions of 2 to 60 candidates, of both classes, all scores different, shuffled."""
    rng = np.random.default_rng(0)
    size = rng.integers(2, 60, 300)
    impression = np.repeat(rng.permutation(300), size)
    labels = (rng.random(len(impression)) < 0.2).astype(int)
    begins = np.cumsum(size) - size
    labels[begins], labels[begins + 1] = 1, 0
    scores = rng.permutation(len(impression)) / 1000
    mixed = rng.permutation(len(impression))
    return impression[mixed], scores[mixed], labels[mixed]


def test_every_impression_is_that_of_the_definitions(drawn):
    impression, scores, labels = drawn
    table = per_impression(impression, scores, labels)
    assert tuple(table) == NAMES and len(table) == 300
    wanted = []
    for one in table.index:
        mine = impression == one
        wanted.append(of_order(labels[mine][np.argsort(-scores[mine])]))
    np.testing.assert_allclose(table.to_numpy(), wanted, rtol=0, atol=1e-12)
    means, left_out = impression_metrics(impression, scores, labels)
    assert left_out == 0 and means == pytest.approx(
        dict(zip(NAMES, np.mean(wanted, axis=0), strict=True)), abs=1e-12
    )


def test_a_long_impression_counts_as_much_as_a_short_one():
    """Two candidates in the right order, nine in the wrong: by hand."""
    impression = ["a"] * 2 + ["b"] * 9
    means, _ = impression_metrics(impression, [2, 1, *range(9)], [1, 0, 1, *[0] * 8])
    assert means["auc"] == 0.5 and means["mrr"] == pytest.approx((1 + 1 / 9) / 2)
    assert means["ndcg@5"] == 0.5 and means["ndcg@10"] == pytest.approx((1 + 1 / log2(10)) / 2)


def test_mrr_is_of_all_that_were_clicked():
    means, _ = impression_metrics([0, 0, 0], [3, 2, 1], [1, 0, 1])
    assert means["mrr"] == pytest.approx((1 + 1 / 3) / 2)


@pytest.mark.parametrize("scores", [[1, 1, 1, 1, 1, 1], [2, 2, 1, 1, 1, 0], [3, 2, 2, 2, 2, 1]])
def test_the_same_score_has_the_mean_of_all_orders(scores):
    """The nDCG is at 5, so that one place of six counts nothing."""
    labels = [1, 0, 0, 1, 0, 1]
    orders = [
        [labels[i] for i in order]
        for order in permutations(range(6))
        if all(scores[i] >= scores[j] for i, j in zip(order, order[1:], strict=False))
    ]
    wanted = np.mean([of_order(order) for order in orders], axis=0)
    found = per_impression(np.zeros(6), scores, labels).iloc[0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_a_model_that_scores_all_alike_has_an_auc_of_a_half(drawn):
    impression, scores, labels = drawn
    sorted_by_label = np.argsort(-labels)  # an order of rows from which ties must gain nothing
    table = per_impression(impression[sorted_by_label], 0 * scores, labels[sorted_by_label])
    np.testing.assert_allclose(table["auc"], 0.5, rtol=0, atol=1e-12)
    assert table["mrr"].mean() < 0.5


def test_impressions_of_one_class_are_left_out_and_counted():
    impression = [1, 1, 2, 2, 3, 3, 3, 4]
    labels = [0, 0, 1, 1, 0, 1, 0, 1]
    means, left_out = impression_metrics(impression, [*range(8)], labels)
    assert left_out == 3 and means["auc"] == 0.5 and means["mrr"] == 0.5
    table = per_impression(impression, [*range(8)], labels)
    assert table.isna().all(axis=1).tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("scores", "labels", "sentence"),
    [
        ([1, float("nan")], [0, 1], "1 of 2 scores are not numbers"),
        ([1, 2], [0, 2], "neither 0 nor 1; see LABEL_FIELD"),
        ([1, 2], [1, 1], "none of 1 impressions has both a click and a candidate without"),
        ([], [], "none of 0 impressions"),
    ],
)
def test_what_has_no_metric_is_one_sentence(scores, labels, sentence):
    with pytest.raises(UserError, match=sentence):
        impression_metrics(np.zeros(len(scores)), scores, labels)
