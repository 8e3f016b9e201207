"""The two functions of ``torch_scatter`` that RecBole's KGIN and MCCLK use, in plain torch.

torch_scatter has no wheels on PyPI: every installation compiles it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def scatter_mean(src: Tensor, index: Tensor, dim: int = 0, dim_size: int | None = None) -> Tensor:
    """Return the mean of the rows of each group, 0 for a group without rows.

    Args:
        src: Rows, [E, D] (or [E]).
        index: Group of each row, [E].
        dim: Only 0.
        dim_size: Number of groups G; by default the largest index plus one.

    Returns:
        [G, D] (or [G]).
    """
    _check(dim)
    size = _size(index, dim_size)
    total = src.new_zeros((size, *src.shape[1:])).index_add(0, index, src)  # [G, D]
    count = torch.bincount(index, minlength=size).clamp(min=1)  # [G]
    return total / count.view(-1, *[1] * (src.dim() - 1)).to(src.dtype)  # [G, D]


def scatter_softmax(src: Tensor, index: Tensor, dim: int = 0) -> Tensor:
    """Return the softmax of each column over the rows of each group.

    Args:
        src: Rows, [E, D] (or [E]).
        index: Group of each row, [E].
        dim: Only 0.

    Returns:
        [E, D] (or [E]).
    """
    _check(dim)
    size = _size(index, None)
    where = index.view(-1, *[1] * (src.dim() - 1)).expand_as(src)  # [E, D]
    # The maximum keeps exp() in range; neither the result nor the gradient depends on it.
    top = src.detach().new_full((size, *src.shape[1:]), float("-inf"))  # [G, D]
    top = top.scatter_reduce(0, where, src.detach(), "amax")  # [G, D]
    weight = (src - top[index]).exp()  # [E, D]
    total = torch.zeros_like(top).index_add(0, index, weight)  # [G, D]
    return weight / total[index]  # [E, D]


def _check(dim: int) -> None:
    if dim != 0:
        raise NotImplementedError("the stand-in for torch_scatter works along dimension 0 only")


def _size(index: Tensor, dim_size: int | None) -> int:
    return dim_size if dim_size is not None else int(index.max()) + 1 if len(index) else 0
