"""Names of losses in the configuration, against the losses that the batches have."""

from __future__ import annotations

from collections.abc import Iterable

from recbole_ext.types import TrainState, UserError, suggest


class LossNames:
    """The losses that a callback knows by name.

    Where a trainer has two tasks (KGAT, MKR) a batch is of one of them, and the losses of the other
    are not in it. That a name is no loss at all shows when both have had their turn.
    """

    def __init__(self, names: Iterable[tuple[str, str]]) -> None:
        """Take the names.

        Args:
            names: Name of a loss and where it was given, for the message.
        """
        self._names = list(names)
        self.reset()

    def reset(self) -> None:
        """Begin with a new run."""
        self._seen: dict[str, None] = {}  # in their order
        self._n_epochs = 0

    def in_batch(self, state: TrainState) -> list[str]:
        """Return the names that the batch has.

        Raises:
            UserError: A name that is no loss, where every batch has all of them.
        """
        self._seen.update(dict.fromkeys(state.losses))
        if state.epochs_to_all_losses == 0:
            self._check()
        return [name for name, _ in self._names if name in state.losses]

    def end_epoch(self, state: TrainState) -> None:
        """Check the names once every loss has come up.

        Raises:
            UserError: A name that is no loss.
        """
        self._n_epochs += 1
        if self._n_epochs >= state.epochs_to_all_losses:
            self._check()

    def _check(self) -> None:
        for name, where in self._names:
            if name not in self._seen:
                raise UserError(
                    f"{where}: the model has no loss '{name}'{suggest(name, self._seen)} "
                    f"(it has {', '.join(self._seen)})"
                )
