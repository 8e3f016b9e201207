"""Lets the parts of a model teach each other."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor

from recbole_ext.callbacks.arguments import check_arguments
from recbole_ext.callbacks.base import Callback
from recbole_ext.modules.distillation import (
    candidate_loss,
    distillation,
    moving_average,
    standardise,
)
from recbole_ext.schedules import build_schedule
from recbole_ext.types import TrainState, UserError, suggest


class Pair:
    """One direction of teaching.

    Attributes:
        teacher: Name of a set of scores.
        student: Name of another.
        weight: Of the term: a number or a schedule of the optimizer steps.
    """

    def __init__(self, teacher: str, student: str, weight: Any = 1.0) -> None:
        """Take the names; ``weight`` is a number or a schedule."""
        self.teacher, self.student = teacher, student
        self.schedule = build_schedule(weight, f"Distill: {teacher} to {student}")

    @property
    def name(self) -> str:
        """Name of the loss."""
        return f"distill_{self.student}"


class Distill(Callback):
    """Adds the terms of knowledge distillation between named sets of scores of one model.

    The model keeps the last batch's in ``score_sets``: name -> [B, C], all of the same candidates,
    the positive first. Each set is standardised before, row by row, for their scales say nothing.
    Of each set a moving average of -log softmax of the positive is kept, over a resume too. A
    teacher is silent while its own is not below the base by ``margin``. The base is its student's
    average: of two who teach each other only the better one does. With ``base: chance`` it is
    log C, which a teacher that is worse than its student may well be below.
    """

    one_process_only = "each would see teachers of its own"

    def __init__(
        self,
        pairs: list[dict[str, Any]],
        temperature: float = 4.0,
        base: Literal["student", "chance"] = "student",
        margin: float = 0.05,
        momentum: float = 0.99,
        phase: str | None = None,
    ) -> None:
        """Take the pairs.

        Args:
            pairs: Mappings with ``teacher``, ``student`` and ``weight``; both directions are two.
            temperature: T of the soft targets.
            base: What a teacher must be better than.
            margin: By how much, in nats.
            momentum: Of the moving averages.
            phase: Name of the phase of ``Alternate`` in which it acts; always by default.
        """
        if not pairs:
            raise UserError("Distill.pairs is empty; give [{teacher: ..., student: ...}]")
        for i, given in enumerate(pairs):
            check_arguments(f"Distill.pairs[{i}]", Pair, given)
        self._pairs = [Pair(**given) for given in pairs]
        for pair in self._pairs:
            if pair.teacher == pair.student:
                raise UserError(f"Distill: '{pair.teacher}' cannot teach itself")
        if not temperature > 0 or not 0 <= momentum < 1:
            raise UserError(
                f"Distill: temperature {temperature} must be above 0, and momentum {momentum} "
                "between 0 and 1"
            )
        self._temperature, self._momentum = temperature, momentum
        self._base, self._margin, self.in_phase = base, margin, phase
        self._averages: dict[str, Tensor] = {}

    def on_fit_start(self, state: TrainState) -> None:
        """Begin with no averages."""
        self._averages = {}

    def on_loss(self, state: TrainState) -> None:
        """Add the terms.

        Raises:
            UserError: The model has no scores of a name.
        """
        if self.in_phase is not None and state.phase != self.in_phase:
            return
        sets = getattr(state.model, "score_sets", None)
        if not sets:
            raise UserError(
                f"Distill: {type(state.model).__name__} keeps no score_sets; it is for models of "
                "several scores, as JointRec"
            )
        scores = {name: standardise(self._of(sets, name)) for name in self._names()}  # [B, C] each
        for name, given in scores.items():
            now = candidate_loss(given.detach())
            self._averages[name] = moving_average(self._averages.get(name), now, self._momentum)
        for pair in self._pairs:
            term = distillation(scores[pair.student], scores[pair.teacher], self._temperature)
            chance = math.log(scores[pair.teacher].shape[1])
            base = self._averages[pair.student] if self._base == "student" else chance
            is_good = self._averages[pair.teacher] < base - self._margin
            state.losses[pair.name] = pair.schedule(state.step) * term * is_good

    def state_dict(self) -> dict[str, Any]:
        """Return the averages."""
        return {"averages": dict(self._averages)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._averages = dict(state["averages"])

    def _names(self) -> list[str]:
        return list(dict.fromkeys(n for pair in self._pairs for n in (pair.teacher, pair.student)))

    def _of(self, sets: dict[str, Tensor], name: str) -> Tensor:
        if name not in sets:
            raise UserError(
                f"Distill: there are no scores '{name}'{suggest(name, sets)} "
                f"(there are {', '.join(sets)})"
            )
        return sets[name]
