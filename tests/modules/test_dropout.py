"""Dropout: the distribution, the gradient, the generator."""

from __future__ import annotations

import pytest
import torch

from recbole_ext.modules.dropout import Dropout, dropout
from recbole_ext.types import UserError

N = 400_003
"""Not a multiple of the four elements that share one random number."""


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_of_zeros_and_expectation(p):
    torch.manual_seed(0)
    out = dropout(torch.ones(N), p)
    five_sigma = 5 * (p * (1 - p) / N) ** 0.5
    assert (out == 0).double().mean().item() == pytest.approx(p, abs=five_sigma)
    kept = out[out != 0]
    assert kept.unique().numel() == 1
    assert kept[0].item() == pytest.approx(1 / (1 - p), rel=1e-3)


def test_one_half_is_exact():
    torch.manual_seed(0)
    assert set(dropout(torch.ones(1000), 0.5).tolist()) == {0.0, 2.0}


def test_neighbours_are_independent():
    """Elements that share a random number, and those of the next one, are uncorrelated."""
    torch.manual_seed(0)
    kept = (dropout(torch.ones(N), 0.5) != 0).double() - 0.5
    for lag in range(1, 9):
        correlation = (kept[:-lag] * kept[lag:]).mean().item() / 0.25
        assert abs(correlation) < 5 / N**0.5, lag


def test_gradient_passes_where_the_value_does():
    torch.manual_seed(0)
    x = torch.randn(7, 5, 3, requires_grad=True)
    out = dropout(x, 0.3)
    out.sum().backward()
    scale = x.grad.max().item()
    torch.testing.assert_close(out, x * x.grad)
    assert scale == pytest.approx(1 / 0.7, rel=1e-3)
    assert set(x.grad.unique().tolist()) == {0.0, scale}


def test_the_global_generator_decides():
    x = torch.ones(1000)
    torch.manual_seed(5)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(dropout(x, 0.5), first)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_keeps_dtype_and_shape(dtype):
    assert dropout(torch.ones(3, 1, 5, dtype=dtype), 0.5).dtype == dtype
    assert dropout(torch.ones(3, 0, dtype=dtype), 0.5).shape == (3, 0)


def test_does_nothing_in_evaluation_mode_or_at_zero():
    x = torch.ones(10)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_senseless_probability(p):
    with pytest.raises(UserError, match="dropout"):
        Dropout(p)
