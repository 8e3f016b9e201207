"""From cosines to logits: a learned scale, and a bias where a match is a yes or no."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MOST = 100.0
"""The largest scale, as in CLIP."""


def bounded_scale(log_scale: Tensor) -> Tensor:
    """Return exp(log_scale), at most :data:`MOST`, of the same shape.

    The gradient passes beyond the bound as within it, or a scale that once got there stayed there.
    """
    bounded = log_scale.clamp(max=math.log(MOST))
    return (log_scale + (bounded - log_scale).detach()).exp()


class MatchScore(nn.Module):
    """cosine * scale (+ bias).

    Raw cosines lie in [-1, 1]: a softmax over them is nearly even, and their binary cross-entropy
    never falls below .313.

    Args:
        scale: At first.
        with_bias: Whether there is a bias, 0 at first.
    """

    def __init__(self, scale: float, with_bias: bool = False) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.zeros(())) if with_bias else None

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by."""
        return bounded_scale(self.log_scale)

    def forward(self, cosine: Tensor) -> Tensor:
        """Return logits, of the shape of the cosines."""
        logits = cosine * self.scale
        return logits if self.bias is None else logits + self.bias
