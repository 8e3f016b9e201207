"""Words that every layer shares: the letters of shape comments, the errors, the training state.

Tensor letters, used in every shape comment of the package:
B batch, L sequence length, N items, U users, D hidden size, K retrieved or candidate count,
M modalities, R memory rows, T text tokens, P image patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Losses = dict[str, Tensor]
"""Named scalar losses of one batch, in the order in which they are summed."""


class UserError(Exception):
    """Bad input: one sentence that names the file, the key or the value, and the remedy.

    The command line prints it without a traceback and exits with code 2.
    """


def suggest(word: str, words: Iterable[str]) -> str:
    """Return ``; did you mean 'X'?`` for the nearest of ``words``, or nothing."""
    by_lower = {candidate.lower(): candidate for candidate in words}
    near = get_close_matches(word.lower(), list(by_lower), n=2, cutoff=0.6)
    return "; did you mean " + " or ".join(f"'{by_lower[n]}'" for n in near) + "?" if near else ""


class StopTraining(Exception):  # noqa: N818 - a signal, as StopIteration is
    """Raised by a callback to end training in good order; the message says why."""


@dataclass
class TrainState:
    """All that the callbacks share with the trainer and with each other.

    Attributes:
        model: The model in training.
        optimizer: The optimizer; its parameter groups are fixed once training has begun.
        total_epochs: Epochs the run is configured for.
        steps_per_epoch: Batches of interactions in one epoch; see :meth:`steps_before`.
        epoch: Current epoch, from 0.
        step: Optimizer steps taken since the beginning of training, over resumes too.
        batch: The batch in work (RecBole's Interaction), between ``on_batch_start`` and
            ``on_batch_end``.
        losses: Named losses of the batch; ``on_loss`` may reweight or extend them.
        metrics: Metrics of the last validation, name -> float.
        metric_names: Names that a validation will have; empty where they are not known before.
        phase: Name of the training phase; early stopping starts its patience anew when it changes.
        stop: Reason to stop after this epoch, or ``None``.
        train_data: The training data loader.
        valid_data: The validation data loader, or ``None``.
        folder: The run folder, or ``None`` when nothing is kept.
        steps_of_epoch: Epoch -> the optimizer steps planned for it, where that is not
            ``steps_per_epoch`` (two tasks, two optimizers); read it by :meth:`steps_before`.
        n_optimizers: Optimizers of the trainer; ``optimizer`` is the one that steps next.
        epochs_to_all_losses: Epochs after which every loss has come up; 0: each batch has them all.
        skip: Set at ``on_loss``: the batch trains nothing. The trainer takes it back.
        save: Writes a checkpoint of the model to a file, whole or not at all; ``None`` without a
            run folder.
        log: ``log(name, value, step)`` writes a scalar to TensorBoard (and W&B when it is on).
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    total_epochs: int
    steps_per_epoch: int
    epoch: int = 0
    step: int = 0
    batch: Any = None
    losses: Losses = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    metric_names: tuple[str, ...] = ()
    phase: str | None = None
    stop: str | None = None
    train_data: Any = None
    valid_data: Any = None
    folder: Path | None = None
    log: Callable[[str, float, int], None] = lambda name, value, step: None
    save: Callable[[Path], None] | None = None
    steps_of_epoch: Callable[[int], int] | None = None
    n_optimizers: int = 1
    epochs_to_all_losses: int = 0
    skip: bool = False

    def steps_before(self, epoch: int) -> int:
        """Return the optimizer steps planned for all epochs before ``epoch``."""
        if self.steps_of_epoch is None:
            return epoch * self.steps_per_epoch
        return sum(map(self.steps_of_epoch, range(epoch)))
