"""Keeps the memory of a retrieval model in step with its weights."""

from __future__ import annotations

from typing import Any

from recbole_ext.callbacks.arguments import at_least
from recbole_ext.callbacks.base import Callback
from recbole_ext.interfaces import HasMemory
from recbole_ext.types import TrainState, UserError


class FaissRefresh(Callback):
    """Calls ``model.refresh_memory()`` every few epochs, and before validations.

    A memory that is already of the current weights is not rebuilt.
    """

    def __init__(self, every: int | None = None, before_valid: bool = True) -> None:
        """Take the rhythm.

        Args:
            every: Refresh at the start of every so many epochs, the first included. Where it is not
                given the model's ``refresh_interval`` says it, and where there is none, it is 1.
            before_valid: Refresh before a validation too, which then sees no stale memory. The
                epochs after it train with that memory.
        """
        at_least(1, "FaissRefresh", every=every)
        self._every = every
        self._interval = 1
        self._before_valid = before_valid
        self._fresh_at: int | None = None  # the optimizer step whose weights the memory has
        self._is_resumed = False

    def on_fit_start(self, state: TrainState) -> None:
        """Refuse a model without memory."""
        if not isinstance(state.model, HasMemory):
            raise UserError(
                f"FaissRefresh: {type(state.model).__name__} has no memory "
                "(no method refresh_memory); remove FaissRefresh from the callbacks"
            )
        of_model: Any = getattr(state.model, "refresh_interval", 1)
        self._interval = of_model if self._every is None else self._every
        self._fresh_at, self._is_resumed = None, False

    def on_epoch_start(self, state: TrainState) -> None:
        """Refresh when the epoch is due."""
        # After a resume the memory of the saved weights, if it was that, is made again from them;
        # an older one the model has restored itself.
        was_fresh = self._is_resumed and self._fresh_at == state.step
        if was_fresh:
            self._fresh_at = None
        self._is_resumed = False
        if was_fresh or state.epoch % self._interval == 0:
            self._refresh(state)

    def on_valid_start(self, state: TrainState) -> None:
        """Refresh unless the weights have not moved since."""
        if self._before_valid:
            self._refresh(state)

    def state_dict(self) -> dict[str, Any]:
        """Return the step of the last refresh."""
        return {"fresh_at": self._fresh_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._fresh_at, self._is_resumed = state["fresh_at"], True

    def _refresh(self, state: TrainState) -> None:
        if self._fresh_at != state.step:
            assert isinstance(state.model, HasMemory)
            state.model.refresh_memory()
            self._fresh_at = state.step
