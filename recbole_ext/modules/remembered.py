"""What is computed of weights, kept from one batch of an evaluation to the next."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import nn


class Remembered:
    """Computes a thing anew while something trains, and else once for each state of the weights.

    What changes a weight or a buffer is noticed, but for writing to its ``.data``. A copy of it and
    a file of the model begin without what is kept.
    """

    _kept: tuple[list[tuple[int, int]], Any] | None = None  # one name, so that threads see a pair

    def __call__(self, module: nn.Module, compute: Callable[[], Any]) -> Any:
        """Return what ``compute`` gives, or gave for the weights that the module has now."""
        if module.training or torch.is_grad_enabled():
            return compute()
        tensors = list(chain(module.parameters(), module.buffers()))
        if any(tensor.is_inference() for tensor in tensors):  # they have no version
            return compute()
        key = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        kept = self._kept
        if kept is None or kept[0] != key:
            self._kept = kept = key, compute()
        return kept[1]

    def forget(self) -> None:
        """Let go of what is kept."""
        self._kept = None

    def __getstate__(self) -> dict[str, Any]:
        return {}
