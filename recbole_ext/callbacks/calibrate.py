"""Chooses a model's mixing settings on validation data."""

from __future__ import annotations

from logging import getLogger
from typing import Any

from recbole_ext.callbacks.arguments import at_least
from recbole_ext.callbacks.base import Callback
from recbole_ext.interfaces import Calibratable
from recbole_ext.types import TrainState, UserError

logger = getLogger(__name__)


class Calibrate(Callback):
    """Calls ``model.calibrate(valid_data)`` before validations, and keeps what it chose.

    With ``FaissRefresh``, list this one after it: it should see the fresh memory. What the model
    draws from a random generator in ``calibrate`` is its own affair.

    Attributes:
        settings: The settings last chosen, by name.
    """

    one_process_only = "each has a part of the validation users, and would choose for itself"

    def __init__(self, every: int = 1) -> None:
        """Calibrate before the first of every ``every`` validations."""
        at_least(1, "Calibrate", every=every)
        self._every = every
        self._n_validations = 0
        self.settings: dict[str, float] = {}

    def on_fit_start(self, state: TrainState) -> None:
        """Refuse a model that cannot be calibrated, and a run without validation data."""
        if not isinstance(state.model, Calibratable):
            raise UserError(
                f"Calibrate: {type(state.model).__name__} has nothing to calibrate "
                "(no method calibrate); remove Calibrate from the callbacks"
            )
        if state.valid_data is None:
            raise UserError("Calibrate needs validation data, and this run has none")
        self._n_validations, self.settings = 0, {}

    def on_valid_start(self, state: TrainState) -> None:
        """Choose the settings, log them, keep them."""
        if self._n_validations % self._every == 0:
            assert isinstance(state.model, Calibratable)
            chosen = state.model.calibrate(state.valid_data)
            self.settings = {name: float(value) for name, value in chosen.items()}
            for name, value in self.settings.items():
                state.log(f"calibrate/{name}", value, state.step)
            chosen_words = ", ".join(f"{name} {value:g}" for name, value in self.settings.items())
            logger.info("scores are mixed with %s", chosen_words)
        self._n_validations += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the count of validations and the settings."""
        return {"n_validations": self._n_validations, "settings": self.settings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._n_validations = state["n_validations"]
        self.settings = dict(state["settings"])
