"""Losses against their definitions, written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recbole.model.loss import EmbLoss

from recbole_ext.modules.losses import (
    bpr,
    coding_rate,
    consistency,
    diversity,
    embedding_norm,
    info_nce,
    item_cross_entropy,
    match_info_nce,
    matching_bce,
)
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


def test_item_cross_entropy_with_a_bias():
    torch.manual_seed(2)
    states, weight, bias = torch.randn(5, 3), torch.randn(8, 3), torch.randn(8)
    targets, leaves = torch.tensor([1, 7, 3, 3, 2]), (states, weight, bias)
    for leaf in leaves:
        leaf.requires_grad_()
    found = item_cross_entropy(states, weight, targets, item_bias=bias)
    expected = F.cross_entropy((states @ weight.T + bias)[:, 1:], targets - 1)
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(loss, leaves) for loss in (found, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_item_cross_entropy_leaves_the_padding_row_alone():
    weight = torch.randn(8, 3, requires_grad=True)
    item_cross_entropy(torch.randn(5, 3), weight, torch.tensor([1, 7, 3, 3, 2])).backward()
    assert (weight.grad[0] == 0).all() and (weight.grad[1:] != 0).all()


def test_bpr():
    rng = np.random.default_rng(2)
    positive, negative = rng.normal(size=4), rng.normal(size=(4, 3))
    expected = np.mean(
        [
            -np.log(1 / (1 + np.exp(n - p)))
            for p, row in zip(positive, negative, strict=True)
            for n in row
        ]
    )
    found = bpr(torch.from_numpy(positive), torch.from_numpy(negative))
    assert found.item() == pytest.approx(expected, rel=1e-9)
    assert bpr(torch.zeros(2), torch.zeros(2, 5)).item() == pytest.approx(np.log(2))


def test_matching_bce():
    rng = np.random.default_rng(3)
    positive, negative = rng.normal(size=4), rng.normal(size=(4, 3))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    expected = -np.log(sigmoid(positive)).mean() / 2 - np.log(1 - sigmoid(negative)).mean() / 2
    found = matching_bce(torch.from_numpy(positive), torch.from_numpy(negative))
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_bce_of_raw_cosines_has_a_floor():
    """At best a match has cosine 1 and the others -1: log(1 + 1/e). A scale gets below it."""
    ones = torch.ones(3)
    assert matching_bce(ones, -ones[:, None]).item() == pytest.approx(0.313, abs=5e-4)
    assert matching_bce(10 * ones, -10 * ones[:, None]).item() < 1e-4


def numpy_match(queries, keys, ids, temperature):
    """Row by row; of several query vectors the nearest counts; equal ids are no negatives."""

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    losses = []
    for i, query in enumerate(queries):
        powers = [
            np.exp(max(cosine(q, key) for q in np.atleast_2d(query)) / temperature) for key in keys
        ]
        others = sum(power for power, name in zip(powers, ids, strict=True) if name != ids[i])
        losses.append(-np.log(powers[i] / (powers[i] + others)))
    return np.mean(losses)


@pytest.mark.parametrize("n_vectors", [None, 3])
def test_match_info_nce(n_vectors):
    rng = np.random.default_rng(4)
    queries = rng.normal(size=(5, 4) if n_vectors is None else (5, n_vectors, 4))
    keys, ids = rng.normal(size=(5, 4)), np.array([7, 8, 7, 9, 1])
    found = match_info_nce(
        torch.from_numpy(queries),
        torch.from_numpy(keys),
        temperature=0.3,
        ids=torch.from_numpy(ids),
    )
    assert found.item() == pytest.approx(numpy_match(queries, keys, ids, 0.3), rel=1e-9)


def test_match_info_nce_of_things_that_cannot_be_told_apart():
    same = torch.ones(6, 3)
    found = match_info_nce(same, same, temperature=0.1, ids=torch.arange(6))
    assert found.item() == pytest.approx(np.log(6), rel=1e-6)
    alone = match_info_nce(same, same, temperature=0.1, ids=torch.ones(6))
    assert alone.item() == pytest.approx(0, abs=1e-6)  # no negatives: the positive is certain


def test_consistency():
    view = torch.tensor([[2.0, 0.0], [1.0, 1.0], [0.0, 1.0], [5.0, 5.0]], requires_grad=True)
    target = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 0.0]], requires_grad=True)
    mask = torch.tensor([True, True, True, False])
    found = consistency(view, target, mask)
    assert found.item() == pytest.approx((0 + (1 - np.sqrt(0.5)) + 2) / 3, rel=1e-6)
    found.backward()
    assert target.grad is None and view.grad[1].any() and not view.grad[3].any()
    assert consistency(view, target, torch.zeros(4, dtype=torch.bool)).item() == 0


def test_the_squared_error_of_unit_vectors_is_next_to_nothing():
    """Why consistency is a cosine: their mean squared error is 2 (1 - cos) / D."""
    a, b = torch.nn.functional.normalize(torch.randn(2, 8, 384), dim=-1)
    distance = consistency(a, b, torch.ones(8, dtype=torch.bool)).item()
    error = torch.nn.functional.mse_loss(a, b).item()
    assert error == pytest.approx(2 * distance / 384, rel=1e-4)


@pytest.mark.parametrize(("n", "size"), [(3, 5), (5, 5), (9, 5)])
def test_coding_rate(n, size):
    x = np.random.default_rng(5).normal(size=(2, n, size))
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    matrix = np.eye(size) + size / (n * 0.3**2) * np.swapaxes(unit, 1, 2) @ unit
    expected = np.linalg.slogdet(matrix)[1] / 2
    np.testing.assert_allclose(coding_rate(torch.from_numpy(x), 0.3).numpy(), expected, rtol=1e-5)


def test_coding_rate_in_closed_form():
    """n equal vectors: 1/2 log(1 + D/eps^2); D orthogonal ones: D/2 log(1 + 1/eps^2)."""
    equal = torch.ones(1, 6, 4)
    assert coding_rate(equal, 0.5).item() == pytest.approx(0.5 * np.log(1 + 4 / 0.25), rel=1e-5)
    orthogonal = torch.eye(4)[None]
    assert coding_rate(orthogonal, 0.5).item() == pytest.approx(2 * np.log(1 + 1 / 0.25), rel=1e-5)


def test_diversity_is_zero_for_orthogonal_vectors_and_falls_as_vectors_part():
    for n, size in ((3, 5), (5, 5)):
        assert diversity(torch.eye(size)[None, :n]).item() == pytest.approx(0, abs=1e-6)
    frame = torch.cat([torch.eye(3), torch.eye(3)])[None]  # six vectors in three dimensions
    assert diversity(frame).item() == pytest.approx(0, abs=1e-6)
    torch.manual_seed(0)
    equal = diversity(torch.ones(2, 4, 8)).item()
    assert equal == pytest.approx(
        1 - np.log(1 + 8 / 0.25) / (4 * np.log(1 + 8 / (4 * 0.25))), rel=1e-5
    )
    x = torch.nn.Parameter(torch.ones(1, 4, 8) + 0.01 * torch.randn(1, 4, 8))
    optimizer = torch.optim.SGD([x], lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        diversity(x).backward()
        optimizer.step()
    assert diversity(x).item() < equal / 4


def test_pairs_that_do_not_count_are_left_out():
    positive, negative = torch.randn(5), torch.randn(5, 2)
    mask = torch.tensor([[1, 0], [0, 0], [1, 1], [0, 1], [0, 0]], dtype=torch.bool)
    pairs = [(i, k) for i in range(5) for k in range(2) if mask[i, k]]
    expected = np.mean([np.log1p(np.exp(float(negative[i, k] - positive[i]))) for i, k in pairs])
    assert bpr(positive, negative, mask).item() == pytest.approx(expected, rel=1e-5)
    assert bpr(positive, negative, torch.zeros_like(mask)).item() == 0


def test_the_norm_of_embeddings_is_recboles():
    parts = [torch.randn(4, 3), torch.randn(7, 2)]
    torch.testing.assert_close(embedding_norm(*parts), EmbLoss()(*parts).squeeze())
