"""The largest numbers of rows, against numpy's sort, however the rows lie in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_ext.index import largest as module
from recbole_ext.index.largest import WORTH, block_of, largest


def stored(scores: torch.Tensor, by: str) -> torch.Tensor:
    """Return the same scores [B, N], side by side in memory by row, by column, or in a buffer."""
    if by == "row":
        return scores.contiguous()
    if by == "column":
        return scores.T.contiguous().T
    buffer = torch.full((scores.shape[1], len(scores) + 3), torch.inf)  # [N, B + 3]
    buffer[:, : len(scores)] = scores.T
    return buffer[:, : len(scores)].T


def check(scores: torch.Tensor, k: int, by: str) -> None:
    """Compare with a sort; where numbers are equal, any of them may be found, but only once."""
    scores = stored(scores, by)
    values, ids = largest(scores, k)
    assert np.array_equal(values.numpy(), -np.sort(-scores.numpy(), axis=1)[:, :k])
    assert torch.equal(scores.gather(1, ids), values)
    assert all(len(set(row)) == k for row in ids.tolist())
    again = largest(scores, k)
    assert torch.equal(ids, again[1]), "the same each time"


BY = ("row", "column", "buffer")


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("k", [1, 2, 7])
@pytest.mark.parametrize("beyond", [-1, 0, 1, 5])
@pytest.mark.parametrize("levels", [1, 2])
def test_it_is_a_sort_on_both_sides_of_every_border(by: str, k: int, beyond: int, levels: int):
    """From topk alone to one level of blocks, and from one level to two."""
    generator = torch.Generator().manual_seed(k)
    block = 64 if by == "row" else 8
    scores = torch.randn(4, WORTH * k * block**levels + beyond, generator=generator)
    assert block_of(stored(scores, by)) == block
    check(scores, k, by)


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("kind", ["ties", "all equal", "one block", "last", "few", "none"])
def test_it_is_a_sort_of_difficult_rows(by: str, kind: str):
    scores = torch.randn(5, 3003, generator=torch.Generator().manual_seed(0))
    if kind == "ties":
        scores = (2 * scores).round()
    elif kind == "all equal":
        scores[:] = 0.5
    elif kind == "one block":
        scores[:, 64:128] += 10
    elif kind == "last":
        scores[:, -6:] += 10
    elif kind == "few":
        scores[:, 4:] = -torch.inf
    elif kind == "none":
        scores[:] = -torch.inf
    for k in (1, 5, 40):
        check(scores, k, by)


@pytest.mark.parametrize("by", BY)
def test_rows_that_are_looked_at_in_parts(by: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "AT_ONCE", 7000)
    scores = torch.randn(9, 3003, generator=torch.Generator().manual_seed(0))  # 2 rows a part
    check(scores, 5, by)
    assert torch.equal(
        largest(scores, 5)[1], torch.stack([largest(r[None], 5)[1][0] for r in scores])
    )


@pytest.mark.parametrize("by", BY)
def test_all_of_a_short_row(by: str):
    check(torch.randn(3, 9), 9, by)
    check(torch.randn(1, 9), 2, by)
    check(torch.randn(0, 9), 2, by)


@pytest.mark.gpu
def test_on_a_gpu_it_is_topk():
    scores = torch.randn(4, 5000, device="cuda")
    values, ids = largest(scores, 10)
    assert ids.is_cuda and torch.equal(values, scores.topk(10).values)
