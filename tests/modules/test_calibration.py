"""Ranks under many mixes against ranks by full scoring."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from recbole_ext.evaluation.ranks import ranks_of
from recbole_ext.modules import calibration, mixing
from recbole_ext.modules.calibration import HeldOut
from recbole_ext.modules.mixing import MixSettings

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


def full_rank(batch: HeldOut, choice: MixSettings, mix: str = "probability") -> torch.Tensor:
    """Return the labels' ranks by scoring all items."""
    weights = torch.zeros(B, K)
    for b in range(B):
        near = [k for k in range(choice.top_k) if batch.targets[b, k]]
        heat = torch.tensor([float(batch.similarity[b, k]) / choice.temperature for k in near])
        weights[b, near] = heat.softmax(0)
    alpha = choice.alpha * (weights.sum(1) > 0)
    parts = (batch.logits.clone(), weights, batch.targets, alpha)
    if mix == "log_linear":
        scores = mixing.log_linear_scores(*parts, choice.smoothing)
    else:
        scores = mixing.mixture_scores(*parts)
    ranks = []
    for b in range(B):
        label = int(batch.labels[b])
        banned = set(batch.hidden[b].tolist()) - {label} if batch.hidden is not None else set()
        others = [i for i in range(1, N) if i != label and i not in banned]
        above = sum(bool(scores[b, i] > scores[b, label]) for i in others)
        equal = sum(bool(scores[b, i] == scores[b, label]) for i in others)
        ranks.append(1 + above + equal // 2)
    return torch.tensor(ranks)


GRIDS = {
    "probability": calibration.grid([0.0, 0.3, 0.9], [1, 3, K], [0.05, 1.0]),
    "log_linear": calibration.grid([0.0, 0.5, 3.0], [1, K], [0.05, 1.0], [0.01, 0.5]),
}


@pytest.mark.parametrize("mix", GRIDS)
@pytest.mark.parametrize("hidden", [False, True])
def test_ranks_are_exact_up_to_the_cutoff(hidden, mix):
    batch = held_out(hidden=hidden)
    found = calibration.mixture_ranks(batch, GRIDS[mix], mix, cutoff=5)
    for choice, ranks in zip(GRIDS[mix], found, strict=True):
        wanted = full_rank(batch, choice, mix)
        assert torch.equal(ranks[wanted <= 5], wanted[wanted <= 5])
        assert (ranks[wanted > 5] > 5).all()


@pytest.mark.parametrize("mix", GRIDS)
def test_ranks_when_there_are_fewer_items_than_candidates(mix):
    batch = held_out()
    choice = MixSettings(0.4, K, 0.2, 0.1)
    found = calibration.mixture_ranks(batch, [choice], mix, cutoff=N)[0]
    assert torch.equal(found, full_rank(batch, choice, mix))


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
    choices = [MixSettings(0.0, K, 1.0), MixSettings(0.3, 2, 0.5)]
    for mix in GRIDS:
        found = calibration.mixture_ranks(batch, choices, mix, cutoff=5)
        for choice, ranks in zip(choices, found, strict=True):
            wanted = full_rank(batch, choice, mix)
            assert torch.equal(ranks[wanted <= 5], wanted[wanted <= 5])
            assert (ranks[wanted > 5] > 5).all()


def test_ndcg_is_the_textbooks():
    found = calibration.ndcg(torch.tensor([1, 2, 3, 10, 11]), 10)
    assert found.tolist() == pytest.approx([1, 1 / np.log2(3), 0.5, 1 / np.log2(11), 0])


def test_the_grid_has_alpha_zero_once_and_first():
    choices = calibration.grid([0.5, 0, 0.1], [5, 2, 5], [0.1])
    assert [(c.alpha, c.top_k) for c in choices] == [(0, 5), (0.1, 2), (0.1, 5), (0.5, 2), (0.5, 5)]
    assert calibration.grid([0.5], [2], [0.1]) == [MixSettings(0.5, 2, 0.1)]
    found = calibration.grid([0, 2.0], [5], [0.1], [0.3, 0.03])
    assert [(c.alpha, c.smoothing) for c in found] == [(0, 0.3), (2, 0.03), (2, 0.3)]


def by_the_rule(ranks: np.ndarray, first_is_none: bool) -> int:
    """Return the choice as docs/ftragrec.md says it: of ranks [choices, rows]."""
    gain = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)
    if first_is_none:
        n = ranks.shape[1]
        chosen = []  # of each tenth of the rows, on the others
        for part in range(10):
            others = np.arange(n) % 10 != part
            chosen.append(max(range(len(gain)), key=lambda c: gain[c][others].sum()))
        gained = np.array([gain[chosen[row % 10]][row] - gain[0][row] for row in range(n)])
        if gained.mean() <= gained.std() / np.sqrt(n):
            return 0
    best = max(range(len(gain)), key=lambda c: gain[c].mean())
    close = []
    for choice in range(len(gain)):
        lost = gain[best] - gain[choice]
        if lost.mean() <= 2 * lost.std() / np.sqrt(ranks.shape[1]) + 1e-12:
            close.append(choice)
    close = [choice for choice in close if choice or not first_is_none]
    return max(close, key=lambda c: (ranks[c] <= 20).mean())


def choices_of(n: int, least: float = 0.5) -> list[MixSettings]:
    return [MixSettings(least + i, 5, 0.1) for i in range(n)]


def test_the_best_choice_is_as_good_at_the_top_and_best_further_down():
    rng = np.random.default_rng(8)
    for least in (0.0, 0.5):
        found = []
        for _ in range(20):
            better = rng.integers(0, 12, size=(9, 1))
            ranks = rng.integers(1, 40, size=(1, 200)) + rng.integers(0, 6, size=(9, 200))
            ranks = np.maximum(1, ranks - better)
            found.append(calibration.best_choice(choices_of(9, least), torch.tensor(ranks)))
            assert found[-1] == by_the_rule(ranks, least == 0)
        assert len(set(found)) > 3
    # far better at the top: the one that finds more at 20 is not close
    ranks = torch.tensor([[1] * 50 + [30] * 50, [9] * 100])
    assert calibration.best_choice(choices_of(2), ranks) == 0
    # better in two rows and worse in one: then what is found at 20 decides
    ranks = torch.tensor([[1, 1, 2] + [1] * 47 + [30] * 50, [2, 2, 1] + [1] * 47 + [15] * 50])
    assert calibration.best_choice(choices_of(2), ranks) == 1
    assert calibration.best_choice(choices_of(2, 0.0), ranks) == 0


def test_where_nothing_is_better_the_neighbours_are_mostly_left_out():
    """As many choices as the default grid has, which differ by chance alone: one is best."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(60):
        same = rng.integers(1, 60, size=(1, 1000))
        ranks = np.maximum(1, same + rng.integers(-1, 2, size=(145, 1000)))
        found.append(calibration.best_choice(choices_of(145, 0.0), torch.tensor(ranks)))
    assert found.count(0) > 36, "by what is best on all rows it would be none"
    equal = torch.ones((3, 1), dtype=torch.int64)
    assert calibration.best_choice(choices_of(3, 0.0), equal) == 0
    assert calibration.best_choice(choices_of(3), equal) == 0
