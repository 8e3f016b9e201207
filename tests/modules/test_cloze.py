"""Which items are hidden, how often, and by what."""

from __future__ import annotations

import pytest
import torch

from recbole_ext.modules.cloze import appended_within, draw_hidden, hide

LENGTHS, WIDTH = torch.tensor([1, 2, 5, 8]), 8


def test_every_item_is_hidden_as_often_the_first_too():
    """Each with p, and where none is drawn one of them: p + (1 - p)^n / n, by symmetry."""
    torch.manual_seed(0)
    n_draws, prob = 20_000, 0.2
    hidden = draw_hidden(LENGTHS.repeat(n_draws), WIDTH, prob).view(n_draws, len(LENGTHS), WIDTH)
    assert hidden.any(2).all()
    for row, length in enumerate(LENGTHS.tolist()):
        assert not hidden[:, row, length:].any()
        share = hidden[:, row, :length].float().mean(0)
        expected = prob + (1 - prob) ** length / length
        torch.testing.assert_close(share, torch.full((length,), expected), rtol=0, atol=0.015)


def test_all_are_hidden_with_probability_one():
    assert torch.equal(draw_hidden(LENGTHS, WIDTH, 1.0), torch.arange(WIDTH) < LENGTHS[:, None])


@pytest.mark.parametrize(("random_prob", "keep_prob"), [(0.0, 0.0), (0.1, 0.1), (0.7, 0.3)])
def test_hidden_items_are_masked_replaced_or_kept(random_prob, keep_prob):
    torch.manual_seed(0)
    n_items, mask = 500, 500
    item_seq = torch.randint(1, n_items, (200, 100))
    hidden = torch.rand(200, 100) < 0.5
    seen = hide(item_seq, hidden, mask, random_prob, keep_prob)
    assert torch.equal(seen[~hidden], item_seq[~hidden])
    now, before = seen[hidden], item_seq[hidden]
    is_mask, is_kept = now == mask, now == before  # one of 499 random items is the same
    is_other = ~is_mask & ~is_kept
    shares = [part.float().mean().item() for part in (is_mask, is_other, is_kept)]
    assert shares == pytest.approx([1 - random_prob - keep_prob, random_prob, keep_prob], abs=0.015)
    assert now.min() >= 1
    others = now[is_other]
    assert not len(others) or (others.max() < n_items and len(others.unique()) > 300)


def test_only_a_full_history_loses_its_oldest_item():
    item_seq = torch.tensor([[3, 0, 0], [4, 5, 0], [6, 7, 8]])
    found, lengths = appended_within(item_seq, torch.tensor([1, 2, 3]), torch.tensor([9, 9, 9]))
    assert found.tolist() == [[3, 9, 0], [4, 5, 9], [7, 8, 9]]
    assert lengths.tolist() == [2, 3, 3]
