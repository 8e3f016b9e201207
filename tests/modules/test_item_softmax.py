"""The chunked softmax against ``F.cross_entropy``, the sampled one against its expectation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_ext.modules import item_softmax
from recbole_ext.modules.item_softmax import (
    ItemProposal,
    chunked_cross_entropy,
    sampled_cross_entropy,
)
from recbole_ext.types import UserError

B, N, D = 37, 53, 6


def parts(dtype=torch.float32):
    torch.manual_seed(0)
    states = torch.randn(B, D, dtype=dtype, requires_grad=True)
    weight = torch.randn(N, D, dtype=dtype, requires_grad=True)
    return states, weight, torch.randint(N, (B,))


def gradients(loss, *leaves):
    return torch.autograd.grad(3.0 * loss, leaves)  # not of weight one


@pytest.mark.parametrize("rows", [1, 5, 37, 1000])
def test_chunks_give_the_loss_and_the_gradients_of_cross_entropy(rows):
    states, weight, targets = parts()
    found = chunked_cross_entropy(states, weight, targets, rows * N * 4 / 2**20)
    expected = F.cross_entropy(states @ weight.T, targets)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(
        gradients(found, states, weight), gradients(expected, states, weight), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_many_rows_are_cut_on_a_cpu(monkeypatch):
    monkeypatch.setattr(item_softmax, "CPU_ROWS", 4)
    states, weight, targets = parts(torch.float64)
    found = chunked_cross_entropy(states, weight, targets)
    torch.testing.assert_close(found, F.cross_entropy(states @ weight.T, targets))


def test_the_gradient_is_that_of_differences():
    states, weight, targets = parts(torch.float64)
    assert torch.autograd.gradcheck(
        lambda h, w: chunked_cross_entropy(h, w, targets, 1e-3), (states, weight)
    )


def test_large_logits_do_not_overflow():
    states, weight, targets = parts()
    loss = chunked_cross_entropy(1000 * states, weight, targets)
    torch.testing.assert_close(loss, F.cross_entropy(1000 * states @ weight.T, targets))


def test_what_is_frozen_gets_no_gradient():
    states, weight, targets = parts()
    chunked_cross_entropy(states, weight.detach(), targets).backward()
    assert states.grad is not None and weight.grad is None
    with torch.no_grad():
        assert not chunked_cross_entropy(states, weight, targets).requires_grad


def test_autocast_keeps_the_softmax_in_float32():
    states, weight, targets = parts()
    with torch.autocast("cpu", torch.bfloat16):
        found = chunked_cross_entropy(states, weight, targets)
    assert found.dtype == torch.float32
    expected = F.cross_entropy(states @ weight.T, targets)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    for ours, theirs in zip(
        gradients(found, states, weight), gradients(expected, states, weight), strict=True
    ):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0.05)


@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_the_mean_of_many_weights_does_not_overflow_in_float16(shift):
    """Odds are about alike, so that weights of 30 add up to 4,000 x 30 before they are averaged."""
    torch.manual_seed(0)
    states = 0.01 * torch.randn(4096, D)
    states = (states - states.mean(1, keepdim=True)).half().float().requires_grad_()
    weight = (torch.randn(4000, D) * 0.02 + shift).half().float().requires_grad_()
    targets = torch.randint(4000, (4096,))
    with torch.autocast("cpu", torch.float16):
        found = chunked_cross_entropy(states, weight, targets)
    expected = F.cross_entropy(states @ weight.T, targets)
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0.01)
    ours, theirs = (gradients(loss, states, weight) for loss in (found, expected))
    sizes = 3 * max(1.0, shift) / 4096, float(theirs[1].abs().max())  # before the shift cancels
    for mine, wanted, size in zip(ours, theirs, sizes, strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-3 * size, rtol=1e-3)


def test_small_weights_keep_their_digits_in_float16():
    """A weight of 0.02, over 4,096 rows: 5e-6 is subnormal in float16, and has two digits less."""
    torch.manual_seed(0)
    states = torch.zeros(4096, D, requires_grad=True)
    weight = (0.02 * torch.randn(N, D)).half().float()
    targets = torch.randint(N, (4096,))
    with torch.autocast("cpu", torch.float16):
        found = chunked_cross_entropy(states, weight, targets)
    expected = F.cross_entropy(states @ weight.T, targets)
    (ours,), (theirs,) = gradients(found, states), gradients(expected, states)
    torch.testing.assert_close(ours, theirs, atol=1e-3 * float(theirs.abs().max()), rtol=1e-3)


def test_improbable_items_keep_their_digits_in_float16():
    """Each of 20,000 has odds of 7.5e-8, which float16 alone rounds to 6e-8; a state feels all."""
    states = torch.tensor([[0.0, 16.40625]], requires_grad=True)  # [1, 2]
    weight = torch.tensor([[0.0, 1.0], *([1.0, 0.0] for _ in range(20_000))])  # [N, 2]
    with torch.autocast("cpu", torch.float16):
        loss = chunked_cross_entropy(states, weight, torch.tensor([0]))
    (found,) = torch.autograd.grad(loss, states)  # [1, 2]
    odds = 20_000 / (math.exp(16.40625) + 20_000)  # of all of them, in closed form
    assert found[0, 0].item() == pytest.approx(odds, rel=0.01)


def test_no_gradient_is_made_that_nobody_asked_for(monkeypatch):
    states, weight, targets = parts()
    made = []
    zeros_like = torch.zeros_like
    monkeypatch.setattr(
        torch, "zeros_like", lambda x, **k: made.append(x.shape) or zeros_like(x, **k)
    )
    with torch.no_grad():
        found = chunked_cross_entropy(states, weight, targets)
    torch.testing.assert_close(found, F.cross_entropy(states @ weight.T, targets))
    assert made == []
    chunked_cross_entropy(states, weight, targets)
    assert made == [states.shape, weight.shape]  # what this test looks for is where they are made


def test_an_empty_batch_is_what_it_is_in_torch():
    states, weight, targets = parts()
    found, expected = (
        chunked_cross_entropy(states[:0], weight, targets[:0]),
        F.cross_entropy(states[:0] @ weight.T, targets[:0]),
    )
    assert found.isnan() and expected.isnan()
    found.backward()
    assert states.grad.shape == states.shape


def test_all_items_as_the_sample_give_the_full_loss():
    states, weight, targets = parts()
    found = sampled_cross_entropy(states, weight, targets, torch.arange(N), torch.zeros(N))
    expected = F.cross_entropy(states @ weight.T, targets)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        gradients(found, states, weight), gradients(expected, states, weight), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_sum_over_the_sample_is_an_unbiased_estimate():
    """Every possible sample of two, weighted by its probability, in numpy."""
    rng = np.random.default_rng(0)
    state, weight, target = rng.normal(size=3), rng.normal(size=(5, 3)), 2
    q = np.array([0.0, 0.1, 0.3, 0.4, 0.2])
    mean = 0.0
    for pair in itertools.product(range(1, 5), repeat=2):
        items = torch.tensor(pair)
        log_expected = torch.from_numpy(np.log(2 * q[list(pair)]))
        loss = sampled_cross_entropy(
            torch.from_numpy(state)[None],
            torch.from_numpy(weight),
            torch.tensor([target]),
            items,
            log_expected,
        )
        others = np.exp(loss.item() + weight[target] @ state) - np.exp(weight[target] @ state)
        mean += q[list(pair)].prod() * others
    expected = sum(np.exp(weight[j] @ state) for j in (1, 3, 4))
    assert mean == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_many_draws_approach_the_full_loss_and_its_gradient(kind):
    states, weight, targets = parts()
    targets = targets.clamp(min=1)
    proposal = ItemProposal(torch.arange(N), kind)
    torch.manual_seed(1)
    n = 200_000
    items, log_q = proposal(n)
    found = sampled_cross_entropy(states, weight, targets, items, log_q + np.log(n))
    expected = F.cross_entropy(states @ weight[1:].T, targets - 1)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    for ours, theirs in zip(
        gradients(found, states, weight), gradients(expected, states, weight), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0.05)


def test_proposals_draw_what_they_say():
    counts = torch.tensor([9, 0, 3, 1])
    torch.manual_seed(0)
    n = 100_000
    for kind, expected in (
        ("uniform", [0, 1 / 3, 1 / 3, 1 / 3]),
        ("popularity", [0, 1 / 7, 4 / 7, 2 / 7]),
    ):
        items, log_q = ItemProposal(counts, kind)(n)
        share = torch.bincount(items, minlength=4) / n
        torch.testing.assert_close(share, torch.tensor(expected), atol=0.01, rtol=0)
        torch.testing.assert_close(log_q.exp(), torch.tensor(expected)[items])


def test_an_unknown_proposal_is_named():
    with pytest.raises(UserError, match="sampled_by"):
        ItemProposal(torch.ones(3), "zipf")
