"""The first items are those of ``torch.topk``, in its order, whatever is tied or missing."""

from __future__ import annotations

import pytest
import torch

from recbole_ext.index.largest import WORTH, block_of
from recbole_ext.modules.top import top_items

BLOCK = 64


def scores_of(kind: str) -> torch.Tensor:
    """Return scores [9, N]; N is no multiple of a block's size."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(9, 150 * BLOCK + 13, generator=generator)
    if kind == "ties":
        scores = (scores * 2).round()
    elif kind == "some ties":
        scores[::2] = (scores[::2] * 100).round()
    elif kind == "last items":
        scores[:, -5:] += 10
    elif kind == "one block":
        scores[:, BLOCK : 2 * BLOCK] += 10
    elif kind == "few candidates":
        scores[:, 4:] = -torch.inf
    elif kind == "no numbers":
        scores[3, 7:900] = torch.nan
    return scores


@pytest.mark.parametrize("k", [1, 3, 8, 50])
@pytest.mark.parametrize(
    "kind",
    ["", "ties", "some ties", "last items", "one block", "few candidates", "no numbers"],
)
def test_indices_are_those_of_topk(kind: str, k: int) -> None:
    scores = scores_of(kind)
    assert block_of(scores) == BLOCK
    assert (scores.shape[1] // BLOCK >= WORTH * (k + 1)) == (k < 50), "both ways are taken"
    assert torch.equal(top_items(scores, k), scores.topk(k).indices)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_which_of_the_equal_ones_is_last_is_topk_s_choice(k: int) -> None:
    """The first k - 1 are clear, and twenty items share the last place."""
    scores, generator = scores_of(""), torch.Generator().manual_seed(2)
    last = scores.topk(k).values[:, -1:]  # [9, 1]
    places = torch.randint(0, scores.shape[1], (9, 20), generator=generator)
    scores.scatter_(1, places, last.expand(-1, 20))
    assert torch.equal(top_items(scores, k), scores.topk(k).indices)


def test_all_items_are_ranked():
    scores = torch.randn(3, 7)
    assert torch.equal(top_items(scores, 7), scores.topk(7).indices)
