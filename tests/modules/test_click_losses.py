"""Losses of clicks against their definitions in numpy, and where their minimum lies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbole_ext.modules.click_losses import (
    click_bce,
    focal,
    hardest,
    impression_softmax,
    sampled_bce,
)

LOGITS = np.array([-3.0, -0.5, 0.2, 1.0, 4.0])
LABELS = np.array([0, 1, 0, 0, 1])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def bce(p, y):
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def tensors():
    return torch.from_numpy(LOGITS), torch.from_numpy(LABELS)


def test_a_click_among_the_non_clicks_of_its_impression():
    logits = np.random.default_rng(0).normal(size=(4, 5))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = impression_softmax(torch.from_numpy(logits)).item()
    assert found == pytest.approx(-np.log(shares[:, 0]).mean(), rel=1e-9)
    shifted = torch.from_numpy(logits + 7.0)  # it compares: a bias of all changes nothing
    assert impression_softmax(shifted).item() == pytest.approx(found, rel=1e-9)


def test_a_weight_of_one_is_the_cross_entropy_and_another_counts_clicks_so_often():
    assert click_bce(*tensors()).item() == pytest.approx(bce(sigmoid(LOGITS), LABELS).mean())
    weights = np.where(LABELS == 1, 24.0, 1.0)
    wanted = (weights * bce(sigmoid(LOGITS + math.log(24)), LABELS)).mean()
    assert click_bce(*tensors(), 24.0).item() == pytest.approx(wanted)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_focal(gamma):
    p = sigmoid(LOGITS)
    wanted = ((1 - np.where(LABELS == 1, p, 1 - p)) ** gamma * bce(p, LABELS)).mean()
    assert focal(*tensors(), gamma).item() == pytest.approx(wanted, rel=1e-6)


def test_half_the_rows_clicks():
    wanted = bce(sigmoid(LOGITS - math.log(0.1 / 0.9)), LABELS).mean()
    assert sampled_bce(*tensors(), 0.1).item() == pytest.approx(wanted, rel=1e-6)


def best_probability(loss, share):
    """Return the constant in (0, 1) that has the least loss where this share are clicks."""
    grid = torch.logspace(-4, 0, 4001, dtype=torch.float64)[:-1]
    labels = torch.tensor([1.0, 0.0], dtype=torch.float64)
    values = []
    for p in grid:
        both = [loss(p.logit().view(1), labels[[k]]) for k in (0, 1)]
        values.append(share * both[0] + (1 - share) * both[1])
    return grid[torch.stack(values).argmin()].item()


def test_the_scores_stay_probabilities_whatever_is_done_about_few_clicks():
    """Of 4 % clicks; sampling shows as many of both."""
    assert best_probability(click_bce, 0.04) == pytest.approx(0.04, rel=0.01)
    weighted = best_probability(lambda x, y: click_bce(x, y, 24.0), 0.04)
    assert weighted == pytest.approx(0.04, rel=0.01)
    sampled = best_probability(lambda x, y: sampled_bce(x, y, 0.04), 0.5)
    assert sampled == pytest.approx(0.04, rel=0.01)
    assert best_probability(lambda x, y: focal(x, y, 2.0), 0.04) > 0.08  # and its page says so


def test_the_hardest_are_kept_and_then_the_first_of_the_others():
    logits = torch.tensor([[9.0, 1, 5, 2, 4, 3], [0.0, 5, 4, 3, 2, 1]], requires_grad=True)
    assert hardest(logits, 3, 0.0).tolist() == [[9, 1, 5, 2], [0, 5, 4, 3]]
    assert hardest(logits, 3, 1.0).sort(1).values.tolist() == [[3, 4, 5, 9], [0, 3, 4, 5]]
    found = hardest(logits, 3, 1 / 3)
    assert found[:, 0].tolist() == [9, 0]
    assert found[:, 1:].sort(1).values.tolist() == [[1, 2, 5], [3, 4, 5]]
    found.sum().backward()
    assert logits.grad.tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]]
