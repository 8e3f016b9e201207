"""Training batches for a GPU, copied from pinned memory: the CPU need not wait for the copy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from recbole.data.interaction import Interaction


class OnDevice:
    """A loader whose batches are on their way to the device when they are handed out.

    The copy is queued behind the step before, and the CPU goes on to collate the next batch; torch
    keeps the pinned memory until the copy is done. RecBole's own ``interaction.to(device)`` then
    has nothing left to copy. Everything else is the loader's.
    """

    def __init__(self, loader: Any, device: torch.device) -> None:
        self.loader, self.device = loader, device

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Interaction]:
        """Yield the loader's batches."""
        for batch in self.loader:
            yield Interaction(
                {
                    name: value.pin_memory().to(self.device, non_blocking=True)
                    for name, value in batch.interaction.items()
                }
            )
