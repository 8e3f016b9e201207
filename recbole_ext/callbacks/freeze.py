"""Freezes parts of a model by name, for some epochs or steps, or for good."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from recbole_ext.callbacks.arguments import at_least, check_arguments
from recbole_ext.callbacks.base import Callback
from recbole_ext.callbacks.hold import Hold, switch
from recbole_ext.types import TrainState, UserError, suggest


def match_parameters(
    model: nn.Module, patterns: Iterable[str], where: str = "pattern"
) -> list[str]:
    """Return the names of the parameters that match any pattern, in the model's order.

    Args:
        model: The model.
        patterns: Shell patterns on parameter names: ``encoder.*``, ``*.bias``.
        where: What the patterns belong to, for the message.

    Raises:
        UserError: A pattern that matches nothing; it names near parameters and modules.
    """
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    found: set[str] = set()
    for pattern in patterns:
        matched = [name for name in names if fnmatchcase(name, pattern)]
        if not matched:
            parts = [f"{name}.*" for name, _ in model.named_modules() if name]
            raise UserError(
                f"{where}: '{pattern}' matches no parameter of {type(model).__name__}"
                f"{suggest(pattern, [*names, *parts])}"
            )
        found.update(matched)
    return [name for name in names if name in found]


def set_trainable(model: nn.Module, patterns: Iterable[str], flag: bool) -> list[str]:
    """Make the parameters that match any pattern trainable or not.

    Args:
        model: The model.
        patterns: Shell patterns on parameter names.
        flag: Whether they train. Where not, their gradient is dropped, so that no optimizer moves
            them: not by weight decay, not by momentum.

    Returns:
        The names that matched.

    Raises:
        UserError: A pattern that matches nothing.
    """
    names = match_parameters(model, patterns)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        switch(parameters[name], flag)
    return names


@dataclass(frozen=True)
class FreezeRule:
    """What is frozen and when: while every bound holds, ``from`` included and ``until`` not."""

    pattern: str | list[str]
    from_epoch: int = 0
    until_epoch: int | None = None
    from_step: int = 0
    until_step: int | None = None

    @property
    def patterns(self) -> list[str]:
        """The patterns as a list."""
        return [self.pattern] if isinstance(self.pattern, str) else self.pattern

    def holds(self, epoch: int, step: int) -> bool:
        """Return whether the rule is in force."""
        return (
            self.from_epoch <= epoch
            and (self.until_epoch is None or epoch < self.until_epoch)
            and self.from_step <= step
            and (self.until_step is None or step < self.until_step)
        )


class Freeze(Callback):
    """Keeps parameters exactly where they are while a rule says so.

    Progressive unfreezing is one rule per part, with later and later ``until_epoch`` or
    ``until_step``. A part whose parameters are all frozen is also in eval mode: no dropout, and
    batch normalisation keeps its statistics. Parameters that the model itself froze stay frozen.
    """

    one_process_only = "what is frozen has no gradient, and the processes wait for one"

    def __init__(self, rules: list[dict[str, Any]]) -> None:
        """Take the rules.

        Args:
            rules: Mappings with ``pattern`` (one or a list, on parameter names) and any of
                ``from_epoch``, ``until_epoch``, ``from_step``, ``until_step``.
        """
        self._rules = [_build_rule(rule, f"Freeze.rules[{i}]") for i, rule in enumerate(rules)]
        self._names: list[list[str]] = []
        self._in_force: list[bool] = []
        self._hold = Hold()

    def on_fit_start(self, state: TrainState) -> None:
        """Find the parameters of every rule, also of those that come into force later."""
        self._in_force = [False] * len(self._rules)
        self._names = [
            match_parameters(state.model, rule.patterns, f"Freeze.rules[{i}]")
            for i, rule in enumerate(self._rules)
        ]

    def on_batch_start(self, state: TrainState) -> None:
        """Apply the rules when one begins or ends; keep frozen parts in eval mode."""
        in_force = [rule.holds(state.epoch, state.step) for rule in self._rules]
        if in_force != self._in_force:
            chosen = [names for names, now in zip(self._names, in_force, strict=True) if now]
            self._hold.set(state.model, {name for names in chosen for name in names})
            self._in_force = in_force
        self._hold.keep_eval()

    def on_fit_end(self, state: TrainState) -> None:
        """Leave the model as it was found."""
        self._hold.release()


def _build_rule(rule: dict[str, Any], where: str) -> FreezeRule:
    check_arguments(where, FreezeRule, rule)
    built = FreezeRule(**rule)
    at_least(0, where, from_epoch=built.from_epoch, from_step=built.from_step)
    at_least(built.from_epoch + 1, where, until_epoch=built.until_epoch)
    at_least(built.from_step + 1, where, until_step=built.until_step)
    return built
