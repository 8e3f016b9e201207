"""Where models and callbacks meet without importing each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class HasMemory(Protocol):
    """A model that retrieves from a memory which goes stale as the weights move."""

    def refresh_memory(self) -> None:
        """Rebuild the memory from the current weights."""
        ...


@runtime_checkable
class Calibratable(Protocol):
    """A model with mixing settings that are chosen on validation data."""

    def calibrate(self, valid_data: Any) -> dict[str, float]:
        """Choose the settings on ``valid_data``, keep them in buffers, and return them by name."""
        ...


@runtime_checkable
class Explainable(Protocol):
    """A model that can say which neighbours stand behind a list."""

    def explain(self, user: int | None = None, history: Sequence[int] | None = None) -> Any:
        """Return the evidence behind the list of a user id, or after a history of item ids."""
        ...
