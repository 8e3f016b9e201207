"""Weighs named losses by schedules."""

from __future__ import annotations

from typing import Any, Literal

from recbole_ext.callbacks.base import Callback
from recbole_ext.schedules import build_schedule
from recbole_ext.types import Losses, TrainState, UserError, suggest


class LossCurriculum(Callback):
    """Multiplies each named loss by the value of its schedule; the others stay as they are."""

    def __init__(self, weights: dict[str, Any], by: Literal["epoch", "step"] = "epoch") -> None:
        """Build the schedules.

        Args:
            weights: Loss name -> a number or a schedule (``recbole_ext/schedules.py``).
            by: Whether schedules count epochs or optimizer steps.
        """
        self._schedules = {
            name: build_schedule(spec, f"LossCurriculum.weights.{name}")
            for name, spec in weights.items()
        }
        self._by = by

    def on_loss(self, state: TrainState) -> None:
        """Multiply.

        Raises:
            UserError: A name that is no loss of the model.
        """
        check_losses(self._schedules, state.losses, "LossCurriculum.weights")
        progress = state.epoch if self._by == "epoch" else state.step
        for name, schedule in self._schedules.items():
            state.losses[name] = state.losses[name] * schedule(progress)


def check_losses(names: Any, losses: Losses, where: str) -> None:
    """Refuse names that are no losses of the batch.

    Raises:
        UserError: Naming the near ones.
    """
    for name in names:
        if name not in losses:
            raise UserError(
                f"{where}: the model has no loss '{name}'{suggest(name, losses)} "
                f"(it has {', '.join(losses)})"
            )
