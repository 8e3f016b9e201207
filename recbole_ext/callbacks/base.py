"""The callback protocol: what may happen in training, and when.

``*_start`` hooks and ``on_loss`` run in the order of the list, ``*_end`` hooks in reverse, so that
a pair nests like a context manager. A hook that is not overridden costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from recbole_ext.types import TrainState, UserError

HOOKS = (
    "on_fit_start",
    "on_epoch_start",
    "on_batch_start",
    "on_loss",
    "on_batch_end",
    "on_epoch_end",
    "on_valid_start",
    "on_valid_end",
    "on_fit_end",
)


class Callback:
    """Base of all callbacks: every hook does nothing, and there is no state to keep.

    Attributes:
        one_process_only: Why it cannot be used with ``nproc`` above 1; empty where it can.
        in_phase: Name of the only phase in which it acts; ``None``: always.
        stages: Names of the phases that it goes through, one after the other.
    """

    one_process_only: ClassVar[str] = ""
    in_phase: str | None = None
    stages: tuple[str, ...] = ()

    def on_fit_start(self, state: TrainState) -> None:
        """Before the first epoch and before a restore: check, add parameter groups."""

    def on_epoch_start(self, state: TrainState) -> None:
        """Before the first batch of an epoch; ``model.train()`` comes after it."""

    def on_batch_start(self, state: TrainState) -> None:
        """After ``model.train()`` and ``zero_grad``, before the forward pass.

        ``state.batch`` is on the device.
        """

    def on_loss(self, state: TrainState) -> None:
        """After the forward pass: ``state.losses`` may be reweighted or extended."""

    def on_batch_end(self, state: TrainState) -> None:
        """After a real optimizer step, which ``state.step`` counts; not after a skipped one."""

    def on_epoch_end(self, state: TrainState) -> None:
        """After the last batch of an epoch, before validation."""

    def on_valid_start(self, state: TrainState) -> None:
        """Before an evaluation on validation data."""

    def on_valid_end(self, state: TrainState) -> None:
        """After it; ``state.metrics`` holds its result.

        Set ``state.stop`` to a reason to end training.
        """

    def on_fit_end(self, state: TrainState) -> None:
        """After training, also after ``StopTraining`` or an error."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: numbers, strings, lists, dicts and tensors only."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""


def overrides(callback: Callback, hook: str) -> bool:
    """Return whether a callback does something at ``hook``."""
    return getattr(type(callback), hook) is not getattr(Callback, hook)


class CallbackList:
    """Runs one hook of many callbacks in the documented order."""

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.callbacks = list(callbacks)
        self._by_hook = {hook: [c for c in self.callbacks if overrides(c, hook)] for hook in HOOKS}
        for hook in HOOKS:
            if hook.endswith("_end"):
                self._by_hook[hook].reverse()

    def run(self, hook: str, state: TrainState) -> None:
        """Call ``hook`` of every callback that overrides it."""
        for callback in self._by_hook[hook]:
            getattr(callback, hook)(state)

    def having(self, *hooks: str) -> list[str]:
        """Return the names of the callbacks that override any of ``hooks``."""
        return [
            type(c).__name__ for c in self.callbacks if any(overrides(c, hook) for hook in hooks)
        ]

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return every callback's state by position and name."""
        return {f"{i}.{type(c).__name__}": c.state_dict() for i, c in enumerate(self.callbacks)}

    def load_state_dict(self, states: dict[str, dict[str, Any]]) -> None:
        """Give every callback its state back; one that the checkpoint does not know starts anew.

        Raises:
            UserError: The checkpoint has the state of a callback that the run lacks.
        """
        mine = {f"{i}.{type(c).__name__}": c for i, c in enumerate(self.callbacks)}
        for name, state in states.items():
            if name not in mine:
                ours = ", ".join(type(callback).__name__ for callback in self.callbacks) or "none"
                raise UserError(
                    f"the checkpoint holds the state of {name.partition('.')[2]} and the run's "
                    f"callbacks are {ours}; resume with the callbacks that the run was started with"
                )
            mine[name].load_state_dict(state)
