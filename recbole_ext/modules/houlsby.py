"""Bottleneck adapters (Houlsby et al., ICML 2019) behind the sub-layers of a T5."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

START_STD = 1e-2
"""Of an adapter's last weights: small, so that it begins near the identity, and not 0, so that
gradients reach its first ones."""

LAST = {"SelfAttention": "o", "EncDecAttention": "o", "DenseReluDense": "wo"}
"""Sub-layer of a T5 -> its last linear layer."""


class Adapter(nn.Module):
    """``x + up(gelu(down(x)))``.

    Args:
        hidden_size: D.
        bottleneck_size: Between the two layers.
    """

    def __init__(self, hidden_size: int, bottleneck_size: int) -> None:
        super().__init__()
        self.down = nn.Linear(hidden_size, bottleneck_size)
        self.up = nn.Linear(bottleneck_size, hidden_size)
        nn.init.normal_(self.up.weight, std=START_STD)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapted states [..., D]."""
        return x + self.up(F.gelu(self.down(x)))  # [..., D]


class Adapted(nn.Module):
    """A linear layer and the adapter behind it.

    Args:
        layer: The last of a sub-layer, into D.
        bottleneck_size: Of the adapter.
    """

    def __init__(self, layer: nn.Linear, bottleneck_size: int) -> None:
        super().__init__()
        self.layer, self.adapter = layer, Adapter(layer.out_features, bottleneck_size)

    @property
    def weight(self) -> Tensor:
        """The layer's, whose type a T5 looks at."""
        return self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, adapted [..., D]."""
        return self.adapter(self.layer(x))


def add_adapters(t5: Any, bottleneck_size: int) -> list[Adapter]:
    """Put an adapter behind every attention and feed-forward network of both stacks.

    Args:
        t5: ``T5ForConditionalGeneration``; changed in place.
        bottleneck_size: Of each adapter.
    """
    found = []
    for stack in (t5.encoder, t5.decoder):
        for layer in (layer for block in stack.block for layer in block.layer):
            for name, last in LAST.items():
                if part := getattr(layer, name, None):
                    adapted = Adapted(getattr(part, last), bottleneck_size)
                    setattr(part, last, adapted)
                    found.append(adapted.adapter)
    return found
