"""What is computed of weights, kept from one batch of an evaluation to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Remembered:
    """Computes a thing anew while something trains, and else once for each state of the weights."""

    def __init__(self) -> None:
        self._key: list[tuple[int, int]] | None = None
        self._value: Any = None

    def __call__(self, module: nn.Module, compute: Callable[[], Any]) -> Any:
        """Return what ``compute`` gives, or gave for the weights that the module has now."""
        if module.training or torch.is_grad_enabled():
            return compute()
        key = [(weight.data_ptr(), weight._version) for weight in module.parameters()]
        if self._key != key:
            self._key, self._value = key, compute()
        return self._value

    def forget(self) -> None:
        """Let go of what is kept."""
        self._key = self._value = None
