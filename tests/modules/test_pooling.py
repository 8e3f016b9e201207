"""Poolings over what counts, against loops in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_ext.modules.pooling import TokenPooling, masked_softmax
from recbole_ext.types import UserError

MASK = np.array([[1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=bool)


def naive_softmax(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    found = np.zeros_like(logits)
    for row in range(len(logits)):
        powers = {t: np.exp(logits[row, t]) for t in range(logits.shape[1]) if mask[row, t]}
        for t, power in powers.items():
            found[row, t] = power / sum(powers.values())
    return found


def test_masked_softmax():
    logits = np.random.default_rng(0).normal(size=MASK.shape)
    found = masked_softmax(torch.from_numpy(logits), torch.from_numpy(MASK))
    np.testing.assert_allclose(found.numpy(), naive_softmax(logits, MASK), atol=1e-12)
    assert found.sum(1).tolist() == pytest.approx([1, 1, 0])


@pytest.mark.parametrize("kind", ["mean", "attention"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_token_pooling(kind, with_bias):
    rng = np.random.default_rng(1)
    tokens, bias, weight = rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 4)), rng.normal(size=5)
    pool = TokenPooling(5, kind).double()
    logits = bias * with_bias
    if kind == "attention":
        with torch.no_grad():
            pool.score.weight.copy_(torch.from_numpy(weight))
        logits = logits + tokens @ weight
    weights = naive_softmax(logits, MASK)
    expected = [
        sum(w * t for w, t in zip(*row, strict=True)) for row in zip(weights, tokens, strict=True)
    ]
    found = pool(
        *map(torch.from_numpy, (tokens, MASK)), torch.from_numpy(bias) if with_bias else None
    )
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-12)
    assert (found[2] == 0).all()


def test_what_does_not_count_changes_nothing_and_gets_no_gradient():
    pool = TokenPooling(5)
    tokens = torch.randn(3, 4, 5, requires_grad=True)
    mask = torch.from_numpy(MASK)
    found = pool(tokens, mask)
    found.square().sum().backward()
    assert tokens.grad.isfinite().all() and (tokens.grad[~mask] == 0).all()
    assert (tokens.grad[mask] != 0).any(-1).all()
    other = torch.where(mask.unsqueeze(-1), tokens, torch.full_like(tokens, 1e6))
    assert torch.equal(pool(other, mask), found)


def test_a_pooling_of_another_name_is_refused():
    with pytest.raises(UserError, match="pooling: 'max' is none of mean, attention"):
        TokenPooling(5, "max")
