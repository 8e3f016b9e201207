"""Logs the named losses by step."""

from __future__ import annotations

from logging import getLogger
from typing import Any

import torch
from torch import Tensor

from recbole_ext.callbacks.arguments import at_least
from recbole_ext.callbacks.base import Callback
from recbole_ext.types import TrainState

logger = getLogger(__name__)


class LogLosses(Callback):
    """Writes the mean of each loss over the last ``every`` steps to the log and to TensorBoard.

    The losses are those that were trained on: reweighted by the callbacks before. They are summed
    where they are and read once per line, so that the device is not waited for at every step.
    """

    def __init__(self, every: int = 100) -> None:
        """Log after every so many optimizer steps."""
        at_least(1, "LogLosses", every=every)
        self._every = every
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}  # a batch of another task has not all of them

    def on_fit_start(self, state: TrainState) -> None:
        """Begin with empty sums."""
        self._sums, self._counts = {}, {}

    def on_batch_end(self, state: TrainState) -> None:
        """Add the losses of the step; log when the line is due."""
        with torch.no_grad():
            for name, loss in state.losses.items():
                # float64: the mean of many float32 values, or half ones, keeps its digits.
                so_far = self._sums.get(name)
                value = loss.detach().double()
                self._sums[name] = value if so_far is None else so_far.to(value.device) + value
                self._counts[name] = self._counts.get(name, 0) + 1
        if state.step % self._every == 0:
            self._write(state)

    def on_fit_end(self, state: TrainState) -> None:
        """Log what is left."""
        if self._sums:
            self._write(state)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the line that is not full yet."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])

    def _write(self, state: TrainState) -> None:
        totals = torch.stack(list(self._sums.values())).tolist()  # the one wait for the device
        means = {
            name: total / self._counts[name] for name, total in zip(self._sums, totals, strict=True)
        }
        for name, mean in means.items():
            state.log(f"loss/{name}", mean, state.step)
        words = ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
        logger.info("step %d: %s", state.step, words)
        self._sums, self._counts = {}, {}
