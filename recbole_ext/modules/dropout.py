"""Dropout whose random bits are cheap on a CPU.

PyTorch's CPU dropout draws one Bernoulli number after the other, which takes a good part of a
training step of a small Transformer. Here one random 64-bit integer serves four elements.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.types import UserError

LEVELS = 1 << 16
"""Values of the 16-bit number that decides on one element."""


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """Zero each element with probability ``p`` and scale the others, so that the expectation stays.

    On a CPU ``p`` is rounded to a multiple of 2^-16 (1/2 is exact) and the scale is that of the
    rounded value. The bits come from torch's global generator, so ``torch.manual_seed`` and a saved
    random state reproduce them. Elsewhere this is :func:`torch.nn.functional.dropout`.

    Args:
        x: Any shape, floating point.
        p: Probability of a zero, in [0, 1].
        training: ``False`` returns ``x`` itself.

    Returns:
        Tensor of the shape of ``x``.
    """
    if not training or p == 0.0:
        return x
    dropped = round(p * LEVELS)
    if x.device.type != "cpu" or not 0 < dropped < LEVELS:
        return F.dropout(x, p)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    levels = words.view(torch.int16)[: x.numel()].view(x.shape)  # uniform on [-2^15, 2^15)
    keep = (levels >= dropped - LEVELS // 2).to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
    return x * keep


class Dropout(nn.Module):
    """:func:`dropout` as a module; it does nothing in evaluation mode."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise UserError(f"dropout: the probability {p} is not in [0, 1)")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with dropout applied, same shape."""
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """Return the probability for ``print(model)``."""
        return f"p={self.p}"
