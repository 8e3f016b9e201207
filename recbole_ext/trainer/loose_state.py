"""What models keep as plain attributes, beside their weights: schedules' counts, cached tables.

RecBole's MultiVAE counts its updates, DiffRec keeps a history of losses, NCL its cluster centres,
KGAT its attention matrix; none is in a state dict, and an exact resume needs them all.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, type(None))


class LooseState:
    """The plain attributes of a model that change while it is trained.

    Args:
        model: The model; what its attributes are now is what a rebuilt one begins with.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        first = self._attributes()
        self._first = {name: _mark(value) for name, value in first.items()}
        # kept alive: another tensor must not get the id of one that is gone
        self._held = [value for value in first.values() if isinstance(value, Tensor)]

    def changed(self) -> dict[str, Any]:
        """Return those that are not as they were, by path: ``encoder.update``."""
        now = self._attributes()
        return {name: value for name, value in now.items() if _mark(value) != self._first.get(name)}

    def restore(self, state: dict[str, Any]) -> None:
        """Set what :meth:`changed` gave; tensors go where the model's parameters are."""
        device = next((p.device for p in self._model.parameters()), torch.device("cpu"))
        for path, value in state.items():
            owner, _, name = path.rpartition(".")
            value = value.to(device) if isinstance(value, Tensor) else value
            setattr(self._model.get_submodule(owner), name, value)

    def _attributes(self) -> dict[str, Any]:
        return {
            f"{path}.{name}".lstrip("."): value
            for path, module in self._model.named_modules()
            for name, value in vars(module).items()
            if name != "training"
            and not name.startswith("_")
            and isinstance(value, (*_PLAIN, Tensor, np.ndarray, np.generic))
            and getattr(value, "dtype", None) != np.dtype(object)  # tokens, which never change
        }


def _mark(value: Any) -> Any:
    """Return what tells a value from a later one without keeping a copy of it."""
    if isinstance(value, Tensor):
        return "tensor", id(value), value._version
    if isinstance(value, np.ndarray):
        return "array", value.shape, zlib.crc32(value.tobytes())
    return type(value), value
