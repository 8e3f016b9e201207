"""Modality dropout: in training an item is now and then without something that it has."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_modalities(present: Tensor, p: float) -> Tensor:
    """Return which modalities stay, [n, M]; an item that has one keeps at least one.

    Args:
        present: Which modalities each item has [n, M].
        p: Probability that one of an item goes; an item that would lose all of them keeps all.
    """
    kept = present & (torch.rand(present.shape, device=present.device) >= p)  # [n, M]
    return torch.where(kept.any(1, keepdim=True), kept, present)
