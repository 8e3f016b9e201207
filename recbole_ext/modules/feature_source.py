"""A stored feature as a module: ids in, vectors out; what is large stays in its file."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.features.store import Aligned


class FeatureSource(nn.Module):
    """Vectors of unit length by internal id; without parameters, and not saved with a model.

    A feature with one vector for each id is a buffer in the type it is stored in. One with several
    (tokens, patches, pictures) stays in the memory map, of which a batch reads what it needs.

    Args:
        aligned: The feature by internal id.

    Raises:
        UserError: A vector has values that are no numbers; of several for an id, when it is read.

    Attributes:
        size: F.
        n_tokens: Most vectors of an id, T.
        present: Which ids have a vector that says something [N].
    """

    present: Tensor
    values: Tensor

    def __init__(self, aligned: Aligned) -> None:
        super().__init__()
        self.size = aligned.values.shape[-1]
        self.n_tokens = 1 if aligned.mask is None else aligned.values.shape[1]
        self._aligned = _Uncopied(aligned)
        if aligned.mask is None:
            rows, _ = aligned.stored(np.arange(len(aligned.place)))  # [N, F], as it is stored
            self.register_buffer("values", torch.from_numpy(rows), persistent=False)
            present = rows.any(1)  # [N]
        else:
            present = aligned.present & aligned.mask[aligned.place.clip(min=0)].any(1)  # [N]
        self.register_buffer("present", torch.from_numpy(present), persistent=False)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Look ids up.

        Args:
            ids: Internal ids [n].

        Returns:
            Vectors [n, T, F] in float32, and which of them count [n, T]. A vector of zeros says
            nothing, and does not count.
        """
        if hasattr(self, "values"):
            values = self.values[ids].float().unsqueeze(1)  # [n, 1, F]
            mask = self.present[ids].unsqueeze(1)  # [n, 1]
        else:
            found = self._aligned.value.take(ids.cpu().numpy())
            values, mask = (torch.from_numpy(np.asarray(x)).to(ids.device) for x in found)
        mask = mask & values.any(-1)  # [n, T]
        return F.normalize(values * mask.unsqueeze(-1), dim=-1), mask


class _Uncopied:
    """Holds what copies of a module share: a copy of a memory map would be read into memory."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> _Uncopied:
        return copy(self)
