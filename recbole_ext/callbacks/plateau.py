"""Watches one validation metric for the end of its improvement."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from recbole_ext.callbacks.arguments import at_least
from recbole_ext.types import UserError, suggest


@dataclass
class Plateau:
    """Says when a metric has not improved for ``patience`` validations in a row.

    Attributes:
        metric: Name as in the validation result; upper and lower case are one.
        patience: Validations without improvement that make a plateau.
        min_delta: What a value must gain over the best one to count as an improvement.
        mode: Whether more is better.
        where: What it belongs to, for messages.
        best: Best value so far; ``None`` before the first.
        waited: Validations since the best.
    """

    metric: str
    patience: int = 10
    min_delta: float = 0.0
    mode: Literal["max", "min"] = "max"
    where: str = field(default="plateau", kw_only=True)
    best: float | None = field(default=None, init=False)
    waited: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        at_least(1, self.where, patience=self.patience)
        at_least(0, self.where, min_delta=self.min_delta)

    def update(self, metrics: Mapping[str, float]) -> bool:
        """Take the metrics of a validation; return whether this is the plateau.

        Raises:
            UserError: The validation has no such metric; it names near ones.
        """
        value = self._find(metrics)
        if not math.isnan(value) and (self.best is None or self._gain(value) > self.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.waited >= self.patience

    def check(self, names: Iterable[str]) -> None:
        """Refuse a metric that is none of the names; where there are none, wait and see.

        Raises:
            UserError: It names near ones.
        """
        names = list(names)
        if names:
            self._find(dict.fromkeys(names, 0.0))

    def restart(self) -> None:
        """Forget the best value and begin to wait anew."""
        self.best, self.waited = None, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and the wait."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.best, self.waited = state["best"], state["waited"]

    def _gain(self, value: float) -> float:
        assert self.best is not None
        return value - self.best if self.mode == "max" else self.best - value

    def _find(self, metrics: Mapping[str, float]) -> float:
        by_lower = {name.lower(): value for name, value in metrics.items()}
        if self.metric.lower() not in by_lower:
            raise UserError(
                f"{self.where}: the validation has no metric '{self.metric}'"
                f"{suggest(self.metric, metrics)} (it has {', '.join(metrics) or 'none'})"
            )
        return float(by_lower[self.metric.lower()])
