"""What FTRagRec's tests build it with, and do with it."""

from __future__ import annotations

from typing import Any

import torch
from contracts import ModelContract

MIXES = ["log_linear", "probability", "vector", "gate"]
FIXED = {"calibrate": "none", "kl_small_weight": 0.0, "enhanced_rec_weight": 1.0}
"""Settings with which nothing but the mixture's own loss and the given mix counts."""


class OfFTRagRec(ModelContract):
    """How the contract builds FTRagRec; by its name pytest collects no test of it."""

    model = "FTRagRec"


def train(net: Any, loader: Any, epochs: int = 1, **options: Any) -> None:
    """Train with Adam, refreshing the memory at every epoch."""
    optimizer = torch.optim.Adam(net.parameters(), **{"lr": 0.01, **options})
    for _ in range(epochs):
        net.refresh_memory()
        net.train()
        for batch in loader:
            optimizer.zero_grad()
            net.calculate_loss(batch).backward()
            optimizer.step()
    net.eval()


def first_batch(loader: Any) -> Any:
    batch = next(iter(loader))
    return batch[0] if isinstance(batch, tuple) else batch


def shake(module: torch.nn.Module, scale: float = 1.0) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape))
