"""Tells a study how a trial is doing, and ends the trial when it falls behind."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

from recbole_ext.callbacks.base import Callback
from recbole_ext.types import TrainState


class Reported(Protocol):
    """What of Optuna's Trial is used."""

    def report(self, value: float, step: int) -> None:
        """Take the value at a step."""

    def should_prune(self) -> bool:
        """Say whether the trial is behind the others."""


class Prune(Callback):
    """Reports the metric of every validation, and stops the training when the study says so.

    Attributes:
        pruned: Whether it was.
    """

    def __init__(self, trial: Reported | None, metric: str) -> None:
        """Take the trial, ``None`` for one that has ended, and the metric as results name it."""
        self._trial, self._metric = trial, metric
        self.pruned = False

    def on_valid_end(self, state: TrainState) -> None:
        """Report; ask for the stop where the trial is behind."""
        if self._trial is None:
            return
        value = float(state.metrics[self._metric])
        with warnings.catch_warnings():  # killed before its checkpoint, an epoch is reported twice
            warnings.simplefilter("ignore")
            self._trial.report(value, state.epoch)
        if self._trial.should_prune():
            self.pruned = True
            state.stop = f"pruned: {self._metric} {value:.4f} after epoch {state.epoch}"

    def state_dict(self) -> dict[str, Any]:
        """Return the verdict: a run that was killed right after it must not forget it."""
        return {"pruned": self.pruned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.pruned = state["pruned"]
