"""The trainable view of a state that neighbours are compared in."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURE_RANGE = (0.01, 5.0)
"""Bounds of the retrieval temperature: at the lower one the nearest neighbour takes all."""


class ResidualBlock(nn.Module):
    """x + W2 gelu(W1 x), with W2 zero at the start, so that the block begins as the identity."""

    def __init__(self, hidden_size: int, inner_size: int) -> None:
        super().__init__()
        self.dense_1 = nn.Linear(hidden_size, inner_size)
        self.dense_2 = nn.Linear(inner_size, hidden_size)
        nn.init.zeros_(self.dense_2.weight)
        nn.init.zeros_(self.dense_2.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return x + self.dense_2(F.gelu(self.dense_1(x)))


class Retriever(nn.Module):
    """Small residual network over encoder states, applied alike to a query and to the memory.

    Untrained it is the identity, and retrieval is by the encoder's own states. It is kept small on
    purpose: the encoder has memorised the training rows, so capacity here overfits at once.

    Args:
        hidden_size: D.
        n_layers: Residual blocks; 0 is the identity for good.
        inner_size: Width inside a block.
        temperature: Initial temperature of the attention over neighbours.
        learn_temperature: Whether the temperature is trained.
    """

    log_temperature: Tensor

    def __init__(
        self,
        hidden_size: int,
        n_layers: int = 1,
        inner_size: int = 64,
        temperature: float = 0.07,
        learn_temperature: bool = True,
    ) -> None:
        super().__init__()
        blocks = [ResidualBlock(hidden_size, inner_size) for _ in range(n_layers)]
        self.blocks = nn.Sequential(*blocks)
        value = torch.tensor(math.log(temperature))
        if learn_temperature:
            self.log_temperature = nn.Parameter(value)
        else:
            self.register_buffer("log_temperature", value)

    def forward(self, states: Tensor) -> Tensor:
        """Map encoder states [..., D] to the space of retrieval [..., D]."""
        return self.blocks(states)

    @property
    def temperature(self) -> Tensor:
        """The temperature, a scalar, within :data:`TEMPERATURE_RANGE`.

        The gradient passes the bounds: with none beyond them, what once went there would stay.
        """
        value, (low, high) = self.log_temperature, TEMPERATURE_RANGE
        bounded = value.detach().clamp(math.log(low), math.log(high))
        return (bounded + (value - value.detach())).exp()

    def similarity(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return cos(r(query), r(key)), with gradients on both sides.

        Args:
            queries: Encoder states [B, D].
            keys: Encoder states of the neighbours [B, K, D].

        Returns:
            [B, K].
        """
        query = F.normalize(self(queries), dim=-1)  # [B, D]
        key = F.normalize(self(keys), dim=-1)  # [B, K, D]
        return torch.einsum("bd,bkd->bk", query, key)  # [B, K]


def log_weights(similarity: Tensor, valid: Tensor, temperature: float | Tensor) -> Tensor:
    """Return log softmax(similarity / T) over the valid neighbours.

    Args:
        similarity: [B, K]; what stands at invalid places does not matter.
        valid: [B, K].
        temperature: T, a scalar.

    Returns:
        [B, K]. Invalid places hold a large negative finite number, so that no gradient is NaN, and
        their weight exp(.) is 0; in a row without valid neighbours the values mean nothing.
    """
    logits = similarity.float() / temperature  # [B, K]
    return F.log_softmax(logits.masked_fill(~valid, -1e9), dim=-1)


class MixGate(nn.Module):
    """How much a row trusts its neighbours: alpha per row from three facts about the retrieval.

    The facts are the largest and the mean similarity and the concentration of the weights (the sum
    of their squares), all 0 without neighbours. The layer's weights start at zero, so that every
    row starts at ``alpha``.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.dense = nn.Linear(3, 1)
        nn.init.zeros_(self.dense.weight)
        nn.init.constant_(self.dense.bias, math.log(alpha / (1 - alpha)))

    def forward(self, similarity: Tensor, weights: Tensor, valid: Tensor) -> Tensor:
        """Return alpha per row [B] from similarity, weights and validity, each [B, K]."""
        n_valid = valid.sum(1)  # [B]
        similarity = similarity.float()
        largest = similarity.masked_fill(~valid, -torch.inf).amax(1)  # [B], cosines may all be < 0
        facts = [
            largest.masked_fill(n_valid == 0, 0.0),
            similarity.masked_fill(~valid, 0.0).sum(1) / n_valid.clamp_min(1),
            weights.square().sum(1),
        ]  # 3 x [B]
        # float: under autocast the layer answers in half precision, which rounds alpha
        return self.dense(torch.stack(facts, dim=1)).squeeze(1).float().sigmoid()  # [B]
