"""Ends training when a validation metric no longer improves."""

from __future__ import annotations

from typing import Any, Literal

from recbole_ext.callbacks.arguments import at_least
from recbole_ext.callbacks.base import Callback
from recbole_ext.callbacks.plateau import Plateau
from recbole_ext.types import TrainState, UserError


class EarlyStop(Callback):
    """Stops after ``patience`` validations in a row without an improvement.

    A new training phase (``Alternate``) is a new beginning: its best value and its patience are its
    own. RecBole's ``stopping_step`` works beside this one, on ``valid_metric``.
    """

    def __init__(
        self,
        metric: str,
        patience: int = 10,
        min_delta: float = 0.0,
        mode: Literal["max", "min"] = "max",
        start_epoch: int = 0,
    ) -> None:
        """Take the rule.

        Args:
            metric: Metric of the validation, ``ndcg@10``.
            patience: Validations without improvement before the stop.
            min_delta: Gain over the best value that counts as an improvement.
            mode: ``max`` when more is better.
            start_epoch: Validations before this epoch (from 0) are not looked at.
        """
        at_least(0, "EarlyStop", start_epoch=start_epoch)
        self._start_epoch = start_epoch
        self._plateau = Plateau(metric, patience, min_delta, mode, where="EarlyStop")
        self._phase: str | None = None

    def on_fit_start(self, state: TrainState) -> None:
        """Begin anew; without validation data there is nothing to watch."""
        if state.valid_data is None:
            raise UserError("EarlyStop needs validation data, and this run has none")
        self._plateau.check(state.metric_names)
        self._phase = None
        self._plateau.restart()

    def on_valid_end(self, state: TrainState) -> None:
        """Compare with the best value; ask for the stop when the patience is at its end."""
        if state.phase != self._phase:
            self._phase = state.phase
            self._plateau.restart()
        if state.epoch >= self._start_epoch and self._plateau.update(state.metrics):
            state.stop = (
                f"EarlyStop: {self._plateau.metric} has not improved on {self._plateau.best} "
                f"for {self._plateau.waited} validations"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, the wait, and the phase they belong to."""
        return {**self._plateau.state_dict(), "phase": self._phase}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._plateau.load_state_dict(state)
        self._phase = state["phase"]
