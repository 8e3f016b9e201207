"""Stage two: the identities of its metrics, sampled candidates, sizes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from rerankers.contracts import ITEMS, TinyCorpus, tiny_batch

from recbole_ext.pipeline.ground_truth import sampled
from recbole_ext.pipeline.rerank import rerank, score_all, write_ranked
from recbole_ext.pipeline.sizes import Sizes, sizes_of
from recbole_ext.pipeline.trained import training_rows
from recbole_ext.rerankers.base import target_places
from recbole_ext.rerankers.build import build_reranker
from recbole_ext.types import UserError

SIZES = Sizes(8, 8, 8)


def reranked(name: str, rows=None, sizes: Sizes = SIZES, topk=(1, 3, 5), seed: int = 1):
    rows = tiny_batch(60) if rows is None else rows
    return rerank(rows, build_reranker(name, {}, TinyCorpus(), seed), sizes, list(topk), 7)


def test_identity_reproduces_stage_one_exactly():
    found = reranked("identity")
    assert found.metrics["overall"] == found.metrics["stage_one"]
    assert found.before == found.after and 0 < found.n_hits < 60
    cut = reranked("identity", sizes=Sizes(8, 4, 4), topk=(1, 3))
    assert cut.metrics["overall"] == cut.metrics["stage_one"]


def test_the_oracle_has_the_recall_of_its_candidates():
    for n in (8, 3):
        found = reranked("oracle", sizes=Sizes(8, n, 1), topk=(1,))
        ceiling = found.ceilings["rerank_top_k"]
        assert ceiling["k"] == n
        assert found.metrics["overall"]["recall@1"] == pytest.approx(ceiling["recall"])
        assert found.metrics["conditional"]["ndcg@1"] == pytest.approx(1.0)
        assert found.n_hits / 60 == pytest.approx(ceiling["recall"])


def test_the_oracle_is_the_ceiling_of_users_with_several_targets():
    """No order has more than the one with all targets in front, at any cut-off."""
    rows = tiny_batch(2, n=8).rows([0])
    rows = replace(rows, targets=[[rows.candidates[0][place] for place in (6, 3, 4)]])
    found = reranked("oracle", rows).metrics["overall"]
    for k in (1, 3, 5):
        assert found[f"recall@{k}"] == pytest.approx(min(k, 3) / 3)
        assert [found[f"{name}@{k}"] for name in ("ndcg", "mrr", "hit")] == pytest.approx([1.0] * 3)


def test_overall_is_conditional_times_the_hit_rate_for_a_reranker():
    for name in ("popularity", "random"):
        found = reranked(name)
        for metric, value in found.metrics["overall"].items():
            assert value == pytest.approx(found.metrics["conditional"][metric] * found.n_hits / 60)


def test_an_order_by_chance_has_k_of_n():
    """1,000 users, 10 candidates: recall@3 is 0.3, within 4 standard deviations of the mean."""
    rows = tiny_batch(2, n=10).rows([0] * 1000)
    targets = [[rows.candidates[0][user % 10]] for user in range(1000)]
    rows = replace(rows, users=[f"u{user}" for user in range(1000)], targets=targets)
    found = reranked("random", rows, Sizes(10, 10, 10), topk=(3,))
    assert abs(found.metrics["overall"]["recall@3"] - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 1000)


def test_batches_change_nothing_and_targets_are_hidden():
    rows = tiny_batch(20)
    assert rows.targets is not None

    class Spy:
        needs_targets = False

        def score(self, batch):
            assert batch.targets is None
            return batch.scores

    for size in (1, 7, 100):
        assert torch.equal(score_all(rows, Spy(), size), rows.scores)


def test_scores_that_are_no_numbers_are_refused():
    class Broken:
        needs_targets = False

        def score(self, batch):
            return torch.full_like(batch.scores, torch.nan)

    with pytest.raises(UserError, match="Broken gives scores that are not numbers"):
        score_all(tiny_batch(), Broken(), 4)


def test_lists_and_ranks_are_kept(tmp_path):
    rows = tiny_batch(12)
    rows = replace(rows, targets=[[*targets, "i98"] for targets in rows.targets])
    found = reranked("popularity", rows)
    write_ranked(tmp_path, "test", found, 3)
    ranked = pd.read_parquet(tmp_path / "ranked.parquet")
    for user, row in enumerate(rows.candidates):
        best = sorted(row, key=lambda item: int(item[1:]))[:3]
        assert ranked["user"][user] == f"u{user}" and ranked["item"][user].tolist() == best
        assert ranked["score"][user].tolist() == [40.0 - int(item[1:]) for item in best]
    ranks = pd.read_parquet(tmp_path / "per_user.parquet")
    assert len(ranks) == 24 and ranks[ranks["item_id"] == "i98"]["rank"].isna().all()
    for _, user, item, before, after in ranks.itertuples():
        row = rows.candidates[int(user[1:])]
        if item in row:
            assert before == row.index(item) + 1
            assert after == 1 + sum(int(other[1:]) < int(item[1:]) for other in row)
        else:
            assert np.isnan(before) and np.isnan(after)


# ---- sampled candidates


def draw(n=6, seed=1, rows=None, score=None):
    rows = tiny_batch(20) if rows is None else rows
    rows = replace(rows, targets=[["i5", "i6"]] * len(rows))
    known = [{*history, "i5", "i6", "i7"} for history in rows.histories]
    return sampled(rows, n, ITEMS, known, seed, score), known


def test_one_positive_stands_among_items_that_the_user_never_took():
    found, known = draw()
    for items, targets, taken in zip(found.candidates, found.targets, known, strict=True):
        assert targets == ["i5"] and len(items) == len(set(items)) == 6
        assert set(items) & taken == {"i5"}
    places = [place for (place,) in target_places(found)]
    assert len(set(places)) > 3, "the positive stands anywhere"


def test_what_is_drawn_depends_on_seed_and_user_alone():
    first, second, other = draw()[0], draw()[0], draw(seed=2)[0]
    assert first.candidates == second.candidates != other.candidates
    some = tiny_batch(20).rows([7, 3])
    assert draw(rows=some)[0].candidates == [first.candidates[7], first.candidates[3]]


def test_stage_one_orders_sampled_candidates_where_it_can():
    """By a score that is the item's number."""

    def numbers(rows):
        return torch.tensor([[float(item[1:]) for item in row] for row in rows.candidates])

    found, _ = draw(score=numbers)
    for row, items in enumerate(found.candidates):
        assert list(items) == sorted(items, key=lambda item: -int(item[1:]))
        assert found.scores[row].tolist() == [float(item[1:]) for item in items]
    assert not draw()[0].scores.any()


def test_a_user_who_took_nearly_all_is_named():
    with pytest.raises(UserError, match="rerank_top_k: 39 sampled candidates are 38 .* lower"):
        draw(n=39)


# ---- sizes


def test_sizes_have_defaults_and_an_order():
    assert sizes_of(None, None, None, 200) == Sizes(200, 50, 20)
    assert sizes_of(None, None, None, 30) == Sizes(30, 30, 20)
    assert sizes_of(100, 10, None, 200) == Sizes(100, 10, 10)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((None, 201, None), "rerank_top_k 201 is more than retrieval_top_k 200"),
        ((300, None, None), "retrieval_top_k 300 is more than the candidates of each user, 200"),
        ((None, 10, 20), "output_top_k 20 is more than rerank_top_k 10"),
        ((None, 0, None), "rerank_top_k takes a number from 1, not 0"),
    ],
)
def test_sizes_beyond_what_there_is_are_refused(given, sentence):
    with pytest.raises(UserError, match=sentence):
        sizes_of(*given, 200)


def test_cutoffs_beyond_the_lists_are_left_out():
    assert Sizes(200, 50, 10).cutoffs([5, 10, 20]) == [5, 10]
    with pytest.raises(UserError, match="topk: every cut-off of .20. is beyond output_top_k 10"):
        Sizes(200, 50, 10).cutoffs([20])


# ---- training rows


def test_rows_to_train_on_have_a_hit_and_other_users_than_those_to_stop_by():
    rows = tiny_batch(200)
    train, valid = training_rows(rows, 8, 1, 0.25)
    assert valid is not None and set(train.users).isdisjoint(valid.users)
    hits = [u for u, places in zip(rows.users, target_places(rows), strict=True) if places]
    assert sorted([*train.users, *valid.users]) == sorted(hits)
    assert 0.1 < len(valid) / len(hits) < 0.4
    assert training_rows(rows, 8, 1, 0.0)[1] is None


def test_without_a_hit_there_is_nothing_to_train_on():
    rows = replace(tiny_batch(), targets=[["i99"]] * 6)
    with pytest.raises(UserError, match="no user has a target among the first 8 candidates"):
        training_rows(rows, 8, 1, 0.1)
