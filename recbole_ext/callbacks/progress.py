"""One progress bar for the whole training."""

from __future__ import annotations

from time import monotonic

import torch.distributed
from tqdm import tqdm

from recbole_ext.callbacks.base import Callback
from recbole_ext.types import TrainState

SECONDS = 0.5
"""Between two looks at the loss: each waits for the device."""


class Progress(Callback):
    """Shows epoch, loss and the last validation beside one bar over all steps of all epochs.

    There is no bar where the error output is no terminal.
    """

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bar: tqdm | None = None
        self._looked = 0.0

    def on_epoch_start(self, state: TrainState) -> None:
        """Open the bar at the first epoch, which after a resume is a later one."""
        done = state.steps_before(state.epoch)
        if self._bar is None:
            total = state.steps_before(state.total_epochs)
            hidden = None if _is_first_process() else True  # None: where there is no terminal
            self._bar = tqdm(total=total, initial=done, mininterval=SECONDS, disable=hidden)
        else:  # steps that the gradient scaler skipped count on the bar too
            self._bar.update(done - self._bar.n)

    def on_batch_end(self, state: TrainState) -> None:
        """Go one step on; show the loss twice a second."""
        if self._bar is None or self._bar.disable:
            return
        if monotonic() - self._looked >= SECONDS:
            self._looked = monotonic()
            self._bar.set_postfix_str(describe(state), refresh=False)
        self._bar.update()

    def on_fit_end(self, state: TrainState) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _is_first_process() -> bool:
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def describe(state: TrainState) -> str:
    """Return epoch, loss and metrics in one line; waits for the device."""
    loss = sum(float(loss.detach()) for loss in state.losses.values())
    metrics = [f"{name} {value:.4f}" for name, value in state.metrics.items()]
    return ", ".join([f"epoch {state.epoch}", f"loss {loss:.4f}", *metrics])
