"""Losses against their definitions, written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_ext.modules.losses import info_nce, item_cross_entropy
from recbole_ext.types import UserError


def numpy_info_nce(a, b, temperature, sim, same=None):
    """Row by row: candidates are all other rows, less those of the same group but the positive."""
    z = np.concatenate([a, b])
    if sim == "cos":
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
    n = len(a)
    losses = []
    for i in range(2 * n):
        positive = (i + n) % (2 * n)
        terms = []
        for j in range(2 * n):
            skipped = j == i
            if same is not None and j != positive:
                skipped = skipped or same[i % n] == same[j % n]
            if not skipped:
                terms.append(np.exp(z[i] @ z[j] / temperature))
        losses.append(-np.log(np.exp(z[i] @ z[positive] / temperature) / sum(terms)))
    return np.mean(losses)


@pytest.mark.parametrize("sim", ["dot", "cos"])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize("grouped", [False, True])
def test_info_nce(sim, temperature, grouped):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6, 4))
    same = np.array([1, 2, 1, 3, 2, 1]) if grouped else None
    found = info_nce(
        torch.from_numpy(a),
        torch.from_numpy(b),
        temperature=temperature,
        sim=sim,
        same=None if same is None else torch.from_numpy(same),
    )
    assert found.item() == pytest.approx(numpy_info_nce(a, b, temperature, sim, same), rel=1e-9)


def test_info_nce_of_one_pair_is_zero():
    """With no negatives the positive is certain."""
    assert info_nce(torch.randn(1, 4), torch.randn(1, 4)).item() == 0.0


def test_info_nce_has_a_finite_gradient_when_all_targets_are_the_same():
    a = torch.randn(3, 4, requires_grad=True)
    info_nce(a, torch.randn(3, 4), same=torch.ones(3, dtype=torch.int64)).backward()
    assert a.grad.isfinite().all()


def test_info_nce_names_a_wrong_similarity():
    with pytest.raises(UserError, match="sim"):
        info_nce(torch.randn(2, 4), torch.randn(2, 4), sim="l2")


def test_item_cross_entropy():
    rng = np.random.default_rng(1)
    states, weight = rng.normal(size=(5, 3)), rng.normal(size=(8, 3))
    targets = np.array([1, 7, 3, 3, 2])
    expected = []
    for h, target in zip(states, targets, strict=True):
        p = np.exp(weight[1:] @ h)
        expected.append(-np.log(p[target - 1] / p.sum()))
    found = item_cross_entropy(*map(torch.from_numpy, (states, weight, targets)))
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-9)


def test_item_cross_entropy_leaves_the_padding_row_alone():
    weight = torch.randn(8, 3, requires_grad=True)
    item_cross_entropy(torch.randn(5, 3), weight, torch.tensor([1, 7, 3, 3, 2])).backward()
    assert (weight.grad[0] == 0).all() and (weight.grad[1:] != 0).all()
