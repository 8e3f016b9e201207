"""Trains the parts of a model in turns, each until it no longer gets better."""

from __future__ import annotations

from dataclasses import dataclass
from logging import getLogger
from typing import Any

import torch
from torch import Tensor

from recbole_ext.callbacks.arguments import at_least, check_arguments
from recbole_ext.callbacks.base import Callback
from recbole_ext.callbacks.freeze import match_parameters
from recbole_ext.callbacks.hold import Hold
from recbole_ext.callbacks.loss_names import LossNames
from recbole_ext.modules.distillation import moving_average
from recbole_ext.types import TrainState, UserError

logger = getLogger(__name__)


@dataclass
class Part:
    """A part of the model that takes turns.

    Attributes:
        name: For the log.
        train: Patterns of its parameters.
        losses: Names of its own objective; the others do not count in its turn.
    """

    name: str
    train: str | list[str]
    losses: list[str]


class AdaptiveAlternate(Callback):
    """Trains one part at a time, and goes to the next when its own objective stands still.

    The objective of a part is the moving average of its losses, which moves only while that part
    trains. Every ``min_steps`` optimizer steps of a turn it is compared with what it was: where it
    has not come down by the share ``threshold`` the turn is over, and so it is after
    ``max_steps``, to the step. The first comparison of a turn is with the average that the part's
    last turn left; in its first turn, with the one after its first step. Parameters of no part
    train all the time. Inside a phase of ``Alternate`` it may be limited to that phase.
    """

    one_process_only = "what a part does not train has no gradient, and the processes wait for one"

    def __init__(
        self,
        parts: list[dict[str, Any]],
        threshold: float = 0.01,
        momentum: float = 0.95,
        min_steps: int = 50,
        max_steps: int = 500,
        phase: str | None = None,
    ) -> None:
        """Take the parts.

        Args:
            parts: Two or more mappings with ``name``, ``train`` and ``losses``.
            threshold: Share of the objective that must be gained in ``min_steps`` to go on.
            momentum: Of the moving average.
            min_steps: Shortest turn.
            max_steps: Longest turn.
            phase: Name of the phase of ``Alternate`` in which it acts; always by default.
        """
        for i, part in enumerate(parts):
            check_arguments(f"AdaptiveAlternate.parts[{i}]", Part, part)
        self._parts = [Part(**part) for part in parts]
        if len({part.name for part in self._parts}) < max(2, len(self._parts)):
            raise UserError("AdaptiveAlternate.parts needs two or more parts of different names")
        at_least(1, "AdaptiveAlternate", min_steps=min_steps, max_steps=max_steps)
        if max_steps < min_steps or not 0 <= momentum < 1:
            raise UserError(
                f"AdaptiveAlternate: max_steps {max_steps} must be min_steps {min_steps} or more, "
                f"and momentum {momentum} between 0 and 1"
            )
        self._threshold, self._momentum = threshold, momentum
        self._min, self._max, self.in_phase = min_steps, max_steps, phase
        self._names = LossNames(
            (loss, f"AdaptiveAlternate: part '{part.name}'")
            for part in self._parts
            for loss in part.losses
        )
        self._hold = Hold()
        self._frozen: list[list[str]] = []
        self._in_force: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._index, self._looked = 0, 0
        self._since: int | None = None  # the step at which the turn began
        self._averages: dict[str, Tensor] = {}
        self._before: Tensor | None = None  # the average at the last look, or the turn's start
        self.switches: list[dict[str, Any]] = []

    def on_fit_start(self, state: TrainState) -> None:
        """Find the parameters of the parts; begin with the first."""
        mine = [self._find(state, i) for i in range(len(self._parts))]
        every = [name for names in mine for name in names]
        self._frozen = [[name for name in every if name not in names] for names in mine]
        self._names.reset()
        self._in_force = None
        self._begin()

    def on_batch_start(self, state: TrainState) -> None:
        """End a turn, and hold what does not train."""
        if not self._acts(state):
            self._hold.release()
            self._in_force = None
            return
        if self._since is None:
            self._since = self._looked = state.step  # the first turn begins with its phase
        self._look(state)
        if self._in_force != self._index:
            self._in_force = self._index
            self._hold.set(state.model, self._frozen[self._index])
        self._hold.keep_eval()

    def on_loss(self, state: TrainState) -> None:
        """Follow the objective of the part that trains; put zeros for the others' losses.

        Raises:
            UserError: A name that is no loss of the model.
        """
        if not self._acts(state):
            return
        known = self._names.in_batch(state)
        own = [name for name in self._parts[self._index].losses if name in known]
        if own:
            value = torch.stack([state.losses[name].detach() for name in own]).sum()
            name = self._parts[self._index].name
            self._averages[name] = moving_average(self._averages.get(name), value, self._momentum)
            if self._before is None:
                self._before = self._averages[name]
        for name in set(known) - set(own):
            state.losses[name] = torch.zeros_like(state.losses[name])  # no graph: no gradient

    def on_epoch_end(self, state: TrainState) -> None:
        """Look again whether every name is a loss, where batches are of two tasks."""
        if self._acts(state):
            self._names.end_epoch(state)

    def on_fit_end(self, state: TrainState) -> None:
        """Leave the model as it was found."""
        self._hold.release()

    def state_dict(self) -> dict[str, Any]:
        """Return whose turn it is, since when, the averages, and the switches so far."""
        return {
            "index": self._index,
            "since": self._since,
            "looked": self._looked,
            "before": self._before,
            "averages": dict(self._averages),
            "switches": self.switches,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._index, self._since, self._looked = state["index"], state["since"], state["looked"]
        self._before, self.switches = state["before"], state["switches"]
        self._averages = dict(state["averages"])

    def _acts(self, state: TrainState) -> bool:
        return self.in_phase is None or state.phase == self.in_phase

    def _look(self, state: TrainState) -> None:
        """Go to the next part where the turn is long enough, or its objective stands still."""
        n_steps = state.step - (self._since or 0)
        is_due = state.step - self._looked >= self._min
        if n_steps >= self._max:
            self._switch(state, f"{n_steps} steps")
        elif is_due and self._before is not None:  # None: no batch has had its losses yet
            now, before = self._averages[self._parts[self._index].name], float(self._before)
            gain = (before - float(now)) / max(abs(before), 1e-12)
            self._looked, self._before = state.step, now
            if gain < self._threshold:
                self._switch(state, f"gained {gain:.2%}")

    def _switch(self, state: TrainState, why: str) -> None:
        """Begin the next part's turn."""
        after = (self._index + 1) % len(self._parts)
        names = self._parts[self._index].name, self._parts[after].name
        self.switches.append({"step": state.step, "from": names[0], "to": names[1], "why": why})
        logger.info("step %d: from '%s' to '%s' (%s)", state.step, *names, why)
        self._index, self._since, self._looked = after, state.step, state.step
        self._before = self._averages.get(names[1])

    def _find(self, state: TrainState, index: int) -> list[str]:
        patterns = self._parts[index].train
        patterns = [patterns] if isinstance(patterns, str) else patterns
        return match_parameters(state.model, patterns, f"AdaptiveAlternate.parts[{index}].train")
