"""Learning rate by optimizer step: warm-up, then cosine, linear or constant."""

from __future__ import annotations

from logging import getLogger
from typing import Literal

from recbole_ext.callbacks.arguments import at_least
from recbole_ext.callbacks.base import Callback
from recbole_ext.schedules import Schedule, constant, cosine, linear
from recbole_ext.types import TrainState, UserError

logger = getLogger(__name__)


class LrSchedule(Callback):
    """Sets the learning rate of every parameter group to its configured one times a factor.

    The factor rises by equal amounts over the warm-up, from 1 / warm-up at the first step to 1 at
    its last, then goes from 1 down to ``min_lr_ratio`` at the end of the configured epochs.
    It depends on the count of optimizer steps alone, so a resumed run goes on where it was.
    """

    def __init__(
        self,
        kind: Literal["cosine", "linear", "constant"] = "cosine",
        warmup_steps: int = 0,
        warmup_ratio: float | None = None,
        min_lr_ratio: float = 0.0,
    ) -> None:
        """Take the shape.

        Args:
            kind: Shape after the warm-up.
            warmup_steps: Length of the warm-up in optimizer steps.
            warmup_ratio: Length as a part of all steps, instead of ``warmup_steps``.
            min_lr_ratio: Factor at the end, from 0 to 1; not for ``constant``.
        """
        at_least(0, "LrSchedule", warmup_steps=warmup_steps, warmup_ratio=warmup_ratio)
        at_least(0, "LrSchedule", min_lr_ratio=min_lr_ratio)
        if warmup_steps and warmup_ratio is not None:
            raise UserError("LrSchedule: give warmup_steps or warmup_ratio, not both")
        if (warmup_ratio or 0) > 1 or min_lr_ratio > 1:
            raise UserError("LrSchedule: warmup_ratio and min_lr_ratio are at most 1")
        self._kind = kind
        self._warmup_steps, self._warmup_ratio = warmup_steps, warmup_ratio
        self._min = min_lr_ratio
        self._factor: Schedule = constant(1.0)

    def on_fit_start(self, state: TrainState) -> None:
        """Lay the schedule over the steps of the run."""
        total = state.steps_before(state.total_epochs)
        warmup = self._warmup_steps
        if self._warmup_ratio is not None:
            warmup = round(self._warmup_ratio * total)
        if warmup > total:
            logger.warning("LrSchedule: the warm-up takes %d steps, the run has %d", warmup, total)
        self._factor = build_factor(self._kind, total, warmup, self._min)

    def on_batch_start(self, state: TrainState) -> None:
        """Set the rates of this step."""
        for group in state.optimizer.param_groups:
            # Kept in the group, the configured rate is saved and restored with the optimizer.
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * self._factor(state.step)

    def on_epoch_end(self, state: TrainState) -> None:
        """Log the rate of the first group."""
        state.log("learning_rate", float(state.optimizer.param_groups[0]["lr"]), state.step)


def build_factor(kind: str, total: int, warmup: int, min_ratio: float) -> Schedule:
    """Return the factor on the learning rate as a function of the steps already taken.

    Args:
        kind: ``cosine``, ``linear`` or ``constant``.
        total: Steps of the whole run.
        warmup: Steps of the warm-up.
        min_ratio: Factor after ``total`` steps.
    """
    end = max(total, warmup)
    if kind == "constant":
        decay = constant(1.0)
    else:
        decay = (cosine if kind == "cosine" else linear)(1.0, min_ratio, end, warmup)
    return lambda step: (step + 1) / warmup if step < warmup else decay(step)
