"""Random choices: what is never drawn, and that the rest is drawn uniformly."""

from __future__ import annotations

import torch

from recbole_ext.modules.sampling import SameTargetSampler, other_items

TARGETS = torch.tensor([5, 2, 5, 9, 2, 5, 5, 7, 5])


def others(row):
    return [r for r, t in enumerate(TARGETS.tolist()) if t == TARGETS[row] and r != row]


def test_draws_are_other_rows_with_the_same_target_uniformly():
    torch.manual_seed(0)
    sampler = SameTargetSampler(TARGETS)
    n = 20_000
    for row in range(len(TARGETS)):
        drawn = sampler(torch.full((n,), row))
        count = torch.bincount(drawn, minlength=len(TARGETS))
        allowed = others(row) or [row]  # itself, if it is the only one
        assert set(count.nonzero().flatten().tolist()) == set(allowed)
        share = 1 / len(allowed)
        five_sigma = 5 * (share * (1 - share) / n) ** 0.5
        for r in allowed:
            assert abs(count[r].item() / n - share) <= five_sigma


def test_agrees_with_a_direct_search_on_random_targets():
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(1, 60, (500,), generator=generator)
    sampler = SameTargetSampler(targets)
    torch.manual_seed(2)
    rows = torch.arange(500)
    for _ in range(20):
        drawn = sampler(rows)
        assert torch.equal(targets[drawn], targets)
        alone = torch.bincount(targets)[targets] == 1
        assert torch.equal(drawn == rows, alone)


def test_global_generator_decides_and_nothing_is_saved():
    sampler = SameTargetSampler(TARGETS)
    rows = torch.arange(len(TARGETS)).repeat(50)
    torch.manual_seed(3)
    first = sampler(rows)
    torch.manual_seed(3)
    assert torch.equal(sampler(rows), first)
    assert sampler.state_dict() == {} and first.dtype == torch.int64


def test_other_items_are_neither_the_target_nor_padding_and_uniform():
    torch.manual_seed(0)
    targets, n = torch.tensor([1, 4, 6]), 20_000  # items 1..6
    drawn = other_items(targets, n, 7)
    assert drawn.shape == (3, n)
    for target, row in zip(targets.tolist(), drawn, strict=True):
        count = torch.bincount(row, minlength=7).tolist()
        assert count[0] == count[target] == 0
        assert all(
            abs(c - n / 5) < 6 * (n / 5) ** 0.5 for i, c in enumerate(count) if i not in (0, target)
        )
