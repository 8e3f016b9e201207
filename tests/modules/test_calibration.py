"""Ranks under many mixes against ranks by full scoring."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from recbole_ext.evaluation.ranks import ranks_of
from recbole_ext.modules import calibration, mixing
from recbole_ext.modules.calibration import Choice, HeldOut

B, K, N = 40, 6, 60


def held_out(seed: int = 0, hidden: bool = False) -> HeldOut:
    rng = np.random.default_rng(seed)
    logits = torch.tensor(2 * rng.normal(size=(B, N))).float()
    logits[:, 0] = -torch.inf
    similarity = torch.tensor(np.sort(rng.uniform(0, 1, size=(B, K)))[:, ::-1].copy()).float()
    targets = torch.tensor(rng.integers(1, 15, size=(B, K)))
    labels = torch.tensor(rng.integers(1, 20, size=B))
    similarity[0], targets[0] = -torch.inf, 0  # no neighbours
    similarity[1, 2:], targets[1, 2:] = -torch.inf, 0
    seen = torch.tensor(rng.integers(0, N, size=(B, 7))) if hidden else None
    return HeldOut(logits, similarity, targets, labels, seen)


def full_rank(batch: HeldOut, choice: Choice) -> torch.Tensor:
    """Return the labels' ranks by scoring all items."""
    weights = torch.zeros(B, K)
    for b in range(B):
        near = [k for k in range(choice.top_k) if batch.targets[b, k]]
        heat = torch.tensor([float(batch.similarity[b, k]) / choice.temperature for k in near])
        weights[b, near] = heat.softmax(0)
    alpha = choice.alpha * (weights.sum(1) > 0)
    scores = mixing.mixture_scores(batch.logits.clone(), weights, batch.targets, alpha)
    ranks = []
    for b in range(B):
        label = int(batch.labels[b])
        banned = set(batch.hidden[b].tolist()) - {label} if batch.hidden is not None else set()
        others = [i for i in range(1, N) if i != label and i not in banned]
        above = sum(bool(scores[b, i] > scores[b, label]) for i in others)
        equal = sum(bool(scores[b, i] == scores[b, label]) for i in others)
        ranks.append(1 + above + equal // 2)
    return torch.tensor(ranks)


@pytest.mark.parametrize("hidden", [False, True])
def test_ranks_are_exact_up_to_the_cutoff(hidden):
    batch = held_out(hidden=hidden)
    choices = [Choice(a, k, t) for a in (0.0, 0.3, 0.9) for k in (1, 3, K) for t in (0.05, 1.0)]
    found = calibration.mixture_ranks(batch, choices, cutoff=5)
    for choice, ranks in zip(choices, found, strict=True):
        wanted = full_rank(batch, choice)
        assert torch.equal(ranks[wanted <= 5], wanted[wanted <= 5])
        assert (ranks[wanted > 5] > 5).all()


def test_ranks_when_there_are_fewer_items_than_candidates():
    batch = held_out()
    choice = Choice(0.4, K, 0.2)
    found = calibration.mixture_ranks(batch, [choice], cutoff=N)[0]
    assert torch.equal(found, full_rank(batch, choice))


def test_score_ranks_counts_better_items():
    scores = torch.tensor([[-math.inf, 3.0, 1.0, 2.0]])
    assert calibration.score_ranks(scores, torch.tensor([2])).tolist() == [3]
    assert calibration.score_ranks(scores, torch.tensor([1])).tolist() == [1]


@pytest.mark.parametrize("n_levels", [1, 2, 5])
def test_ties_count_as_in_the_evaluation(n_levels):
    """With few distinct logits most items tie, more of them than the candidates looked at."""
    plain = held_out()
    levels = torch.randint(n_levels, (B, N), generator=torch.Generator().manual_seed(2))
    logits = torch.where(plain.logits.isinf(), plain.logits, levels.float())
    batch = dataclasses.replace(plain, logits=logits)
    rows = torch.arange(B)
    wanted = ranks_of(logits, rows, batch.labels)
    assert torch.equal(calibration.score_ranks(logits, batch.labels), wanted)
    found = calibration.mixture_ranks(batch, [Choice(0.0, K, 1.0), Choice(0.3, 2, 0.5)], cutoff=5)
    for choice, ranks in zip((0.0, 0.3), found, strict=True):
        wanted = full_rank(batch, Choice(choice, 2, 0.5))
        assert torch.equal(ranks[wanted <= 5], wanted[wanted <= 5])
        assert (ranks[wanted > 5] > 5).all()


def test_ndcg_is_the_textbooks():
    found = calibration.ndcg(torch.tensor([1, 2, 3, 10, 11]), 10)
    assert found.tolist() == pytest.approx([1, 1 / np.log2(3), 0.5, 1 / np.log2(11), 0])


def test_the_grid_has_alpha_zero_once_and_first():
    choices = calibration.grid([0.5, 0, 0.1], [5, 2, 5], [0.1])
    assert [(c.alpha, c.top_k) for c in choices] == [(0, 5), (0.1, 2), (0.1, 5), (0.5, 2), (0.5, 5)]
    assert calibration.grid([0.5], [2], [0.1]) == [Choice(0.5, 2, 0.1)]
