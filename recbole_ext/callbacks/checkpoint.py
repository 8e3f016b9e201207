"""Numbered snapshots of the model, beside the trainer's ``best.pt`` and ``last.pt``."""

from __future__ import annotations

from typing import Any

from recbole_ext.callbacks.arguments import at_least
from recbole_ext.callbacks.base import Callback
from recbole_ext.types import TrainState, UserError


class Checkpoint(Callback):
    """Writes ``epoch-<n>.pt`` to the run folder every few epochs, n from 0 as in the log.

    To continue a run is ``last.pt``'s part; a snapshot is for looking at a model as it was.
    """

    def __init__(self, every: int = 1, keep: int | None = None) -> None:
        """Take the rhythm.

        Args:
            every: Write after every so many epochs.
            keep: Keep so many of the newest and delete the older of this callback's own; ``None``
                keeps all.
        """
        at_least(1, "Checkpoint", every=every, keep=keep)
        self._every = every
        self._keep = keep
        self._written: list[str] = []

    def on_fit_start(self, state: TrainState) -> None:
        """Refuse a run that keeps nothing."""
        if state.folder is None or state.save is None:
            raise UserError("Checkpoint needs a run folder, and this run keeps nothing")
        self._written = []

    def on_epoch_end(self, state: TrainState) -> None:
        """Write when due, then delete what is too old."""
        if (state.epoch + 1) % self._every != 0:
            return
        assert state.folder is not None and state.save is not None
        name = f"epoch-{state.epoch}.pt"
        state.save(state.folder / name)
        self._written.append(name)
        while self._keep is not None and len(self._written) > self._keep:
            (state.folder / self._written.pop(0)).unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the names of the files that are this callback's own."""
        return {"written": list(self._written)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._written = list(state["written"])
