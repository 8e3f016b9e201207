"""The controls: identity, random, popularity, oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from rerankers.contracts import RerankerContract, TinyCorpus, tiny_batch

from recbole_ext.rerankers.build import build_reranker, find_reranker, settings_of
from recbole_ext.types import UserError


class TestIdentity(RerankerContract):
    name = "identity"


class TestPopularity(RerankerContract):
    name = "popularity"


class TestOracle(RerankerContract):
    name = "oracle"


class TestRandom(RerankerContract):
    name = "random"

    def test_every_place_is_as_likely_as_another(self):
        """4,000 users with 5 candidates: each is first 800 times, within 4 standard deviations."""
        batch = tiny_batch().rows([0] * 4000).first(5)
        users = [f"user {i}" for i in range(len(batch))]
        object.__setattr__(batch, "users", users)
        scores = build_reranker("random", {}, TinyCorpus(), seed=3).score(batch)
        counts = np.bincount(scores.argmax(1).numpy(), minlength=5)
        assert (abs(counts - 800) < 4 * math.sqrt(4000 * 0.2 * 0.8)).all()

    def test_another_seed_draws_others(self, batch):
        first, second = (
            build_reranker("random", {}, TinyCorpus(), seed=seed).score(batch) for seed in (1, 2)
        )
        assert not torch.equal(first, second)


def test_identity_gives_stage_one_and_the_oracle_the_targets():
    batch = tiny_batch()
    assert torch.equal(build_reranker("identity", {}, TinyCorpus()).score(batch), batch.scores)
    lists = build_reranker("oracle", {}, TinyCorpus()).rerank(batch, 1)
    for user, (row, (best, *_)) in enumerate(zip(batch.candidates, lists, strict=True)):
        assert best == (batch.targets[user][0] if user % 3 else row[0])


def test_popularity_goes_by_training_counts():
    batch = tiny_batch()
    lists = build_reranker("popularity", {}, TinyCorpus()).rerank(batch, 99)
    for row, found in zip(batch.candidates, lists, strict=True):
        assert found == sorted(row, key=lambda item: int(item[1:]))


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("popularty", {}, "no reranker 'popularty'; did you mean 'popularity'"),
        ("base", {}, "no reranker 'base'; there are .*identity, oracle"),
        ("identity:x", {}, "identity takes nothing behind a colon, not 'x'"),
        ("identity", {"seed": 3}, "identity has no setting 'seed' .it has: none."),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(name, given, sentence):
    with pytest.raises(UserError, match=sentence):
        settings_of(name, given)


def test_rerankers_are_imported_when_they_are_wanted():
    assert find_reranker("oracle").__module__ == "recbole_ext.rerankers.oracle"
