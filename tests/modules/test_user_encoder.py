"""Attention over clicked news against loops in numpy; histories of nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_ext.modules.user_encoder import UserEncoder
from recbole_ext.types import UserError

HEADS, SIZE, QUERY = 2, 6, 5
MASK = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4])


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def reference(encoder, clicked, mask):
    """Return the user of one history, of the clicks that count alone."""
    weights = {k: v.numpy() for k, v in encoder.state_dict().items()}
    x = clicked[mask]
    if not len(x):
        return weights["empty"]
    if encoder.heads is not None:
        q, k, v = (
            x @ weights[f"heads.{name}.weight"].T + weights[f"heads.{name}.bias"]
            for name in ("query", "key", "value")
        )
        width, heads = SIZE // HEADS, []
        for h in range(HEADS):
            part = slice(h * width, (h + 1) * width)
            scores = q[:, part] @ k[:, part].T / np.sqrt(width)
            heads.append(np.stack([softmax(row) for row in scores]) @ v[:, part])
        x = np.concatenate(heads, 1)
    hidden = np.tanh(x @ weights["pooling.project.weight"].T + weights["pooling.project.bias"])
    return softmax((hidden @ weights["pooling.query.weight"].T)[:, 0]) @ x


@pytest.mark.parametrize("kind", ["additive", "multi_head"])
def test_it_is_the_attention_over_the_clicks_that_count(kind):
    torch.manual_seed(0)
    encoder = UserEncoder(kind, SIZE, HEADS, QUERY).double()
    clicked = torch.randn(3, 4, SIZE, dtype=torch.float64)
    found = encoder(clicked, MASK).detach().numpy()
    for row, one, mask in zip(found, clicked.numpy(), MASK.numpy(), strict=True):
        np.testing.assert_allclose(row, reference(encoder, one, mask), rtol=1e-9)


@pytest.mark.parametrize("kind", ["additive", "multi_head"])
def test_nothing_clicked_is_no_nan_in_the_gradients_either(kind):
    encoder = UserEncoder(kind, SIZE, HEADS, QUERY)
    clicked = torch.randn(3, 4, SIZE, requires_grad=True)
    encoder(clicked, MASK).sum().backward()
    assert clicked.grad.isfinite().all() and encoder.empty.grad.any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())
    assert not clicked.grad[~MASK].any()


def test_words_and_widths_that_cannot_be_meant():
    with pytest.raises(UserError, match="user_encoder: 'multihead' is none of .*'multi_head'"):
        UserEncoder("multihead", SIZE, HEADS, QUERY)
    with pytest.raises(UserError, match="n_heads 4"):
        UserEncoder("multi_head", SIZE, 4, QUERY)
