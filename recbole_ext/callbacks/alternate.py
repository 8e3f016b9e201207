"""Training in phases: each with the parameters that train, the losses that count, and an end."""

from __future__ import annotations

from dataclasses import dataclass
from logging import getLogger
from typing import Any

import torch

from recbole_ext.callbacks.arguments import at_least, check_arguments
from recbole_ext.callbacks.base import Callback
from recbole_ext.callbacks.freeze import match_parameters
from recbole_ext.callbacks.hold import Hold
from recbole_ext.callbacks.loss_names import LossNames
from recbole_ext.callbacks.plateau import Plateau
from recbole_ext.types import TrainState, UserError

logger = getLogger(__name__)


@dataclass
class Phase:
    """One phase: what trains, which losses count, and how long.

    Attributes:
        name: Its name, for ``state.phase`` and the log.
        train: Patterns of the parameters that train; ``None``: all.
        losses: Names of the losses that count; ``None``: all.
        epochs: Length in whole epochs.
        steps: Length in optimizer steps.
        until: Arguments of :class:`Plateau`: the phase ends when that metric stops improving.
    """

    name: str
    train: str | list[str] | None = None
    losses: list[str] | None = None
    epochs: int | None = None
    steps: int | None = None
    until: dict[str, Any] | None = None

    @property
    def has_end(self) -> bool:
        """Whether the phase says how long it is."""
        return not (self.epochs is None and self.steps is None and self.until is None)


class Alternate(Callback):
    """Goes through phases: staged training, or with ``cycle`` alternating training.

    Parameters that a phase does not train are frozen as ``Freeze`` does it; losses that do not
    count are zeros, so that a batch always has the same names. A phase ends at the next epoch, or
    by ``steps`` also within one. Staged training sets ``state.phase`` to the phase's name, and
    early stopping begins anew; it ends when the last phase is over, which without an end of its
    own lasts to the end of the run. A cycle is one long phase to early stopping.
    """

    one_process_only = "what a phase does not train has no gradient, and the processes wait for one"

    def __init__(self, phases: list[dict[str, Any]], cycle: bool = False) -> None:
        """Take the phases.

        Args:
            phases: Mappings with ``name`` and any of ``train``, ``losses``, and one of ``epochs``,
                ``steps``, ``until``.
            cycle: Begin again with the first phase after the last.
        """
        if not phases:
            raise UserError("Alternate.phases is empty; give at least one phase")
        self._phases = [_build_phase(p, f"Alternate.phases[{i}]") for i, p in enumerate(phases)]
        for phase in self._phases if cycle else self._phases[:-1]:
            if not phase.has_end:
                raise UserError(f"Alternate: phase '{phase.name}' needs epochs, steps or until")
        self._names = LossNames(
            (loss, f"Alternate: phase '{phase.name}'")
            for phase in self._phases
            for loss in phase.losses or ()
        )
        self._cycle = cycle
        if not cycle:
            self.stages = tuple(phase.name for phase in self._phases)
            if len(set(self.stages)) < len(self.stages):  # the second would be no new beginning
                raise UserError(
                    f"Alternate.phases: each needs a name of its own, not {', '.join(self.stages)}"
                )
        self._hold = Hold()
        self._frozen: list[list[str]] = []
        self._in_force: int | None = None
        self._enter(0, epoch=0, step=0)

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self._phases[self._index]

    def on_fit_start(self, state: TrainState) -> None:
        """Begin with the first phase; find the parameters of all of them."""
        self._frozen = [self._find_frozen(state, i) for i in range(len(self._phases))]
        if state.valid_data is None and any(phase.until for phase in self._phases):
            raise UserError("Alternate: 'until' needs validation data, and this run has none")
        for plateau in filter(None, map(_build_plateau, self._phases)):
            plateau.check(state.metric_names)
        self._names.reset()
        self._in_force = None
        self._enter(0, epoch=0, step=0)

    def on_epoch_start(self, state: TrainState) -> None:
        """Begin the next phase when the last one is over."""
        while self._is_over(state.epoch, state.step) and self._has_next():
            self._enter(self._next(), state.epoch, state.step)
        self._apply(state)

    def on_batch_start(self, state: TrainState) -> None:
        """Begin the next phase within an epoch when the last one was so many steps."""
        if self._are_steps_over(state.step) and self._has_next():
            # A phase of epochs that begins here has its whole epochs after this one.
            self._enter(self._next(), state.epoch + 1, state.step)
        self._apply(state)
        self._hold.keep_eval()

    def on_loss(self, state: TrainState) -> None:
        """Put zeros for the losses that do not count in this phase.

        Raises:
            UserError: A name that is no loss of the model, or nothing left to train on.
        """
        self._names.in_batch(state)
        counting = self.phase.losses
        if counting is not None:
            for name, loss in state.losses.items():
                if name not in counting:
                    state.losses[name] = torch.zeros_like(loss)  # no graph: no gradient at all
            if state.epochs_to_all_losses and not set(counting) & set(state.losses):
                state.skip = True  # a batch of the task that is put aside
                return
        if not any(loss.requires_grad for loss in state.losses.values()):
            raise UserError(
                f"Alternate: in phase '{self.phase.name}' no loss that counts depends on a "
                "parameter that trains; change its train or losses"
            )

    def on_epoch_end(self, state: TrainState) -> None:
        """End training with the last phase."""
        self._names.end_epoch(state)
        self._stop_after_last(state)

    def on_valid_end(self, state: TrainState) -> None:
        """See whether the phase has come to its plateau."""
        if self._plateau is not None and self._plateau.update(state.metrics):
            self._has_plateaued = True
            self._stop_after_last(state)

    def on_fit_end(self, state: TrainState) -> None:
        """Leave the model as it was found."""
        self._hold.release()

    def state_dict(self) -> dict[str, Any]:
        """Return the phase, where it began, and its plateau."""
        return {
            "index": self._index,
            "since_epoch": self._since_epoch,
            "since_step": self._since_step,
            "has_plateaued": self._has_plateaued,
            "plateau": self._plateau.state_dict() if self._plateau else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._enter(state["index"], state["since_epoch"], state["since_step"])
        self._has_plateaued = state["has_plateaued"]
        if self._plateau is not None:
            self._plateau.load_state_dict(state["plateau"])

    def _enter(self, index: int, epoch: int, step: int) -> None:
        self._index, self._since_epoch, self._since_step = index, epoch, step
        self._plateau = _build_plateau(self._phases[index])
        self._has_plateaued = False

    def _apply(self, state: TrainState) -> None:
        """Freeze what the current phase does not train, once."""
        if self._in_force == self._index:
            return
        self._in_force = self._index
        self._hold.set(state.model, self._frozen[self._index])
        if not self._cycle:
            state.phase = self.phase.name
            at = f"epoch {state.epoch}, step {state.step}"
            logger.info("training phase '%s' from %s on", self.phase.name, at)

    def _is_over(self, epoch: int, step: int) -> bool:
        """Whether the current phase has ended when ``epoch`` begins."""
        by_epochs = self.phase.epochs is not None and epoch - self._since_epoch >= self.phase.epochs
        return by_epochs or self._are_steps_over(step) or self._has_plateaued

    def _are_steps_over(self, step: int) -> bool:
        return self.phase.steps is not None and step - self._since_step >= self.phase.steps

    def _has_next(self) -> bool:
        return self._cycle or self._index + 1 < len(self._phases)

    def _next(self) -> int:
        return (self._index + 1) % len(self._phases)

    def _stop_after_last(self, state: TrainState) -> None:
        if not self._has_next() and self._is_over(state.epoch + 1, state.step):
            state.stop = f"Alternate: the last phase, '{self.phase.name}', is over"

    def _find_frozen(self, state: TrainState, index: int) -> list[str]:
        patterns = self._phases[index].train
        if patterns is None:
            return []
        patterns = [patterns] if isinstance(patterns, str) else patterns
        training = match_parameters(state.model, patterns, f"Alternate.phases[{index}].train")
        ids = {id(state.model.get_parameter(name)) for name in training}
        every = state.model.named_parameters()  # a shared one once; it trains if any name matches
        return [name for name, parameter in every if id(parameter) not in ids]


def _build_phase(phase: dict[str, Any], where: str) -> Phase:
    check_arguments(where, Phase, phase)
    built = Phase(**phase)
    if sum(length is not None for length in (built.epochs, built.steps, built.until)) > 1:
        raise UserError(f"{where}: give one of epochs, steps and until")
    at_least(1, where, epochs=built.epochs, steps=built.steps)
    if built.until is not None:
        check_arguments(f"{where}.until", Plateau, built.until)
        _build_plateau(built)
    return built


def _build_plateau(phase: Phase) -> Plateau | None:
    if phase.until is None:
        return None
    return Plateau(**phase.until, where=f"Alternate: phase '{phase.name}'")
