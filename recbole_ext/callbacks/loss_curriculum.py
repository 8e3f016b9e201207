"""Weighs named losses by schedules."""

from __future__ import annotations

from typing import Any, Literal

from recbole_ext.callbacks.base import Callback
from recbole_ext.callbacks.loss_names import LossNames
from recbole_ext.schedules import build_schedule
from recbole_ext.types import TrainState


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
        self._names = LossNames((name, "LossCurriculum.weights") for name in weights)

    def on_fit_start(self, state: TrainState) -> None:
        """Begin to look for the losses."""
        self._names.reset()

    def on_loss(self, state: TrainState) -> None:
        """Multiply.

        Raises:
            UserError: A name that is no loss of the model.
        """
        progress = state.epoch if self._by == "epoch" else state.step
        for name in self._names.in_batch(state):
            state.losses[name] = state.losses[name] * self._schedules[name](progress)

    def on_epoch_end(self, state: TrainState) -> None:
        """Look again whether every name is a loss, where batches are of two tasks."""
        self._names.end_epoch(state)
