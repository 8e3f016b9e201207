"""Items as vectors of their content: v_i = P x_i + delta_i, of unit length."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recbole_ext.modules.feature_source import FeatureSource

ACTIVATIONS_PER_TOKEN = 8
"""Widths D that a fusion holds for each token, roughly: its queries, keys, values and sums."""


def linear_map(size: int, hidden_size: int) -> nn.Linear:
    """Return a linear map without bias that keeps lengths and angles, as well as its sizes allow.

    An MLP with LayerNorm would not: untrained it maps all texts to nearly one direction.
    """
    layer = nn.Linear(size, hidden_size, bias=False)
    nn.init.orthogonal_(layer.weight, gain=math.sqrt(max(1.0, size / hidden_size)))
    return layer


class ItemContent(nn.Module):
    """Item ids -> vectors of unit length.

    Each modality is mapped linearly (P_m x), the fusion makes one vector of them, and delta_i,
    which is zero at first, is what the interactions say beyond the content.

    Args:
        sources: Modality -> its stored vectors.
        fusion: See :mod:`recbole_ext.modules.fusion`.
        hidden_size: D.
        n_items: N.
        memory_mib: MiB of features and activations held at once; what comes out does not depend on
            it. In training more than one chunk is computed twice, so that gradients stay in it too.
    """

    def __init__(
        self,
        sources: Mapping[str, FeatureSource],
        fusion: nn.Module,
        hidden_size: int,
        n_items: int,
        memory_mib: float = 256.0,
    ) -> None:
        super().__init__()
        self.sources = nn.ModuleDict(sources)
        self.projections = nn.ModuleDict(
            {name: linear_map(source.size, hidden_size) for name, source in sources.items()}
        )
        self.fusion = fusion
        self.delta = nn.Embedding(n_items, hidden_size, padding_idx=0)
        nn.init.zeros_(self.delta.weight)
        row = sum(
            s.n_tokens * (s.size + ACTIVATIONS_PER_TOKEN * hidden_size) for s in sources.values()
        )
        self.chunk_items = max(1, int(memory_mib * (1 << 20)) // (4 * row))

    @property
    def n_items(self) -> int:
        """N, the padding item included."""
        return self.delta.num_embeddings

    def present(self, ids: Tensor) -> Tensor:
        """Say which modalities items have, [...] -> [..., M]."""
        found = [source.get_buffer("present")[ids] for source in self.sources.values()]
        return torch.stack(found, -1)

    def map_of(self, modality: str) -> nn.Linear | None:
        """Return P of a modality, or ``None`` where there is no such one."""
        found = self.projections[modality] if modality in self.projections else None
        return found if isinstance(found, nn.Linear) else None

    def tokens(self, ids: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return of each modality the mapped vectors [n, T, D], and which of them count [n, T]."""
        found = {name: source(ids) for name, source in self.sources.items()}
        tokens = [self.projections[name](values) for name, (values, _) in found.items()]
        return tokens, [mask for _, mask in found.values()]

    def modalities(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return a vector of unit length for each modality, [n, M, D], and which are there [n, M].

        Of several vectors it is the mean.
        """
        pooled, masks = [], []
        for tokens, mask in zip(*self.tokens(ids), strict=True):
            weights = mask / mask.sum(1, keepdim=True).clamp_min(1)  # [n, T]
            pooled.append((weights.unsqueeze(1) @ tokens).squeeze(1))  # [n, D]
            masks.append(mask.any(1))  # [n]
        return F.normalize(torch.stack(pooled, 1), dim=-1, eps=1e-6), torch.stack(masks, 1)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors of items, [n] -> [n, D]."""
        parts = ids.split(self.chunk_items)
        if len(parts) < 2:
            return self._vectors(ids)
        if not torch.is_grad_enabled():
            return torch.cat([self._vectors(part) for part in parts])  # [n, D]
        return torch.cat([checkpoint(self._vectors, part, use_reentrant=False) for part in parts])

    def all(self) -> Tensor:
        """Return the vectors of all items, [N, D]."""
        return self(torch.arange(self.n_items, device=self.delta.weight.device))

    def _vectors(self, ids: Tensor) -> Tensor:
        tokens, masks = self.tokens(ids)
        delta = self.delta(ids)  # [n, D]
        return F.normalize(self.fusion(tokens, masks, delta) + delta, dim=-1, eps=1e-6)  # [n, D]
