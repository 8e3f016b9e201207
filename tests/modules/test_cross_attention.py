"""Cross-attention against a loop over queries and keys; rows without keys; who gets gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_ext.modules.cross_attention import CrossAttention
from recbole_ext.types import UserError


def naive(layer, x, memory, mask, n_heads) -> np.ndarray:
    """Each query over the keys that count, one head after the other."""
    q, k, v, out = (
        getattr(layer, name).weight.detach().numpy() for name in ("query", "key", "value", "dense")
    )
    size = x.shape[-1] // n_heads
    found = np.zeros_like(x)
    for b in range(len(x)):
        keys = np.flatnonzero(mask[b])
        for t in range(x.shape[1]) if len(keys) else ():
            heads = []
            for h in range(n_heads):
                part = slice(h * size, (h + 1) * size)
                scores = [(q @ x[b, t])[part] @ (k @ memory[b, s])[part] for s in keys]
                weights = np.exp(np.array(scores) / np.sqrt(size))
                weights /= weights.sum()
                heads.append(sum(w * (v @ memory[b, s])[part] for w, s in zip(weights, keys)))  # noqa: B905
            found[b, t] = out @ np.concatenate(heads)
    return found


def test_cross_attention():
    rng = np.random.default_rng(0)
    x, memory = rng.normal(size=(3, 4, 6)), rng.normal(size=(3, 5, 7))
    mask = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0], [0] * 5], dtype=bool)
    layer = CrossAttention(6, 7, n_heads=2).double()
    found = layer(*map(torch.from_numpy, (x, memory, mask)))
    np.testing.assert_allclose(found.detach().numpy(), naive(layer, x, memory, mask, 2), atol=1e-12)
    assert (found[2] == 0).all() and (found[1] != 0).any()


@pytest.mark.parametrize("n_keys", [1, 2])
def test_queries_and_keys_learn_only_where_there_is_a_choice(n_keys):
    """A single key is the identity: that is why the fusions refuse it."""
    layer = CrossAttention(6)
    layer(
        torch.randn(3, 2, 6), torch.randn(3, n_keys, 6), torch.ones(3, n_keys).bool()
    ).sum().backward()
    for part in (layer.query, layer.key):
        assert bool((part.weight.grad.abs() > 1e-7).any()) == (n_keys > 1)
    assert layer.value.weight.grad.any()


def test_rows_without_keys_have_finite_gradients():
    layer = CrossAttention(6, n_heads=3)
    x, memory = torch.randn(2, 3, 6, requires_grad=True), torch.randn(2, 4, 6, requires_grad=True)
    layer(x, memory, torch.tensor([[True] * 4, [False] * 4])).square().sum().backward()
    for grad in (x.grad, memory.grad, *(p.grad for p in layer.parameters())):
        assert grad.isfinite().all() and grad.any()
    assert (memory.grad[1] == 0).all()


def test_heads_divide_the_width():
    with pytest.raises(UserError, match="hidden_size: 6 is not a multiple of n_heads 4"):
        CrossAttention(6, n_heads=4)
