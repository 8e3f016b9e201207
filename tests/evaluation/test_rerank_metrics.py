"""Metrics of reranked candidates against loops and closed forms, and the identities that hold."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch

from recbole_ext.evaluation.rerank_metrics import (
    blocks,
    ceiling,
    random_baseline,
    target_ranks,
    user_metrics,
)
from recbole_ext.rerankers.batch import padded


def random_rows(seed: int, n_users: int = 40) -> tuple[list[list[float]], list[list[int]], list]:
    """Scores (with ties), places of the targets, and numbers of targets, some no candidates."""
    rng = np.random.default_rng(seed)
    scores, places, n_targets = [], [], []
    for _ in range(n_users):
        n = int(rng.integers(1, 12))
        scores.append(rng.integers(0, 5, n).astype(float).tolist())
        mine = rng.permutation(n)[: rng.integers(0, min(n, 3) + 1)].tolist()
        places.append(mine)
        n_targets.append(max(1, len(mine) + int(rng.integers(0, 2))))
    return scores, places, n_targets


def by_hand(scores, places, n_targets, k):
    """One user's metrics by their definitions; tied items have the mean of their ranks."""
    ranks = []
    for place in places:
        above = sum(score > scores[place] for score in scores)
        same = sum(score == scores[place] for score in scores)
        ranks.append(np.mean(range(above + 1, above + same + 1)))
    inside = [rank for rank in ranks if rank <= k]
    ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(n_targets, k) + 1))
    return {
        f"recall@{k}": len(inside) / n_targets,
        f"ndcg@{k}": sum(1 / math.log2(1 + rank) for rank in inside) / ideal,
        f"hit@{k}": float(bool(inside)),
        f"mrr@{k}": max((1 / rank for rank in inside), default=0.0),
    }


def test_metrics_of_every_user_are_those_of_their_definitions():
    scores, places, n_targets = random_rows(0)
    found = user_metrics(target_ranks(padded(scores), places), n_targets, [1, 3, 5])
    assert list(found)[:4] == ["recall@1", "recall@3", "recall@5", "ndcg@1"]
    for user in range(len(scores)):
        for k in (1, 3, 5):
            for name, value in by_hand(scores[user], places[user], n_targets[user], k).items():
                assert found[name][user] == pytest.approx(value), (user, name)


def test_tied_items_share_the_middle_of_their_places():
    ranks = target_ranks(padded([[2.0, 2.0], [1.0, 1.0, 1.0], [0.0]]), [[0], [1], []])
    assert ranks == [[1.5], [2.0], []]


def test_overall_is_conditional_times_the_hit_rate():
    scores, places, n_targets = random_rows(1)
    is_hit = np.array([bool(mine) for mine in places])
    assert 0 < is_hit.sum() < len(is_hit)
    table = user_metrics(target_ranks(padded(scores), places), n_targets, [2, 4])
    found = blocks(table, table, is_hit)
    assert found["stage_one"] == found["overall"]
    for name, value in found["overall"].items():
        assert value == pytest.approx(found["conditional"][name] * is_hit.mean())
        assert value == pytest.approx(table[name].mean())


def test_without_a_hit_everything_is_zero():
    table = user_metrics([[], []], [1, 2], [5])
    found = blocks(table, table, np.array([False, False]))
    assert {value for block in found.values() for value in block.values()} == {0.0}


def test_an_order_by_chance_has_the_mean_over_all_orders():
    """The closed form of the sampled baseline against every permutation of five candidates."""
    orders = torch.tensor(list(permutations(range(5))), dtype=torch.float32)  # [120, 5]
    ranks = target_ranks(orders, [[0]] * len(orders))
    found = user_metrics(ranks, [1] * len(orders), [1, 3, 5, 9]).mean()
    expected = random_baseline(5, [1, 3, 5, 9])
    assert dict(found) == pytest.approx(expected)
    assert expected["recall@3"] == pytest.approx(3 / 5) and expected["recall@9"] == 1.0


def test_the_ceiling_is_the_share_of_targets_among_the_first_candidates():
    places, n_targets = [[0, 4], [2], []], [2, 1, 3]
    assert ceiling(places, n_targets, 1) == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert ceiling(places, n_targets, 3) == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert ceiling(places, n_targets, 9) == pytest.approx((1 + 1 + 0) / 3)
