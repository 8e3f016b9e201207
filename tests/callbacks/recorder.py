"""A callback that notes what the hooks see, for the loop and the trainer to be compared by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recbole_ext.callbacks.base import HOOKS, Callback
from recbole_ext.types import StopTraining, TrainState

NEVER = 99

seen: list[tuple[Any, ...]] = []
"""What was noted; of the module, because a run makes the callback from its settings."""


class Recorder(Callback):
    """Notes every hook; changes the phase, gives a reason to stop, or stops at once.

    Args:
        phase_at: Epoch with which the second phase begins.
        stop_at: Epoch after whose validation there is a reason to stop.
        raise_at: Epoch at whose end ``StopTraining`` is raised.
    """

    def __init__(self, phase_at: int = NEVER, stop_at: int = NEVER, raise_at: int = NEVER) -> None:
        self.phase_at, self.stop_at, self.raise_at = phase_at, stop_at, raise_at

    def note(self, hook: str, state: TrainState) -> None:
        place = (state.epoch, state.step, state.phase, state.stop)
        seen.append((hook, *place, state.steps_per_epoch, state.total_epochs, bool(state.metrics)))
        if hook == "on_epoch_start":
            state.phase = "second" if state.epoch >= self.phase_at else "first"
        if hook == "on_valid_end" and state.epoch == self.stop_at:
            state.stop = "enough"
        if hook == "on_epoch_end" and state.epoch == self.raise_at:
            raise StopTraining("at once")


def _noting(hook: str) -> Callable[[Recorder, TrainState], None]:
    return lambda self, state: self.note(hook, state)


for _hook in HOOKS:
    setattr(Recorder, _hook, _noting(_hook))
