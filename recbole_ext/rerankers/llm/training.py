"""Training of a language model by the answers to its prompts; it can be killed and goes on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from recbole_ext.rerankers.llm.gradients import check_gradients
from recbole_ext.rerankers.llm.local import LocalEngine
from recbole_ext.rerankers.llm.modes import Example
from recbole_ext.trainer.checkpoint import read_checkpoint, write_checkpoint
from recbole_ext.types import UserError

FILE = "training.pt"
"""The state after the last epoch, in the reranker's folder while it is trained."""


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        loss: ``candidates``: cross-entropy over the labels of the prompt; ``lm``: over all tokens.
        epochs: Passes over the rows at most.
        learning_rate: Of AdamW, after the warm-up; it falls to 0 on a line.
        weight_decay: Of AdamW.
        warmup_ratio: Part of all steps in which the learning rate rises from 0.
        clip_grad_norm: Norm to which gradients are clipped.
        batch_size: Rows that go through the model together.
        accumulation_steps: Such batches of an optimizer step.
        stopping_step: Epochs without a better valid loss after which it stops.
        seed: Of the order and of dropout.
        show_progress: Whether there is a progress bar.
    """

    loss: str
    epochs: int
    learning_rate: float
    weight_decay: float
    warmup_ratio: float
    clip_grad_norm: float
    batch_size: int
    accumulation_steps: int
    stopping_step: int
    seed: int
    show_progress: bool


@dataclass
class Progress:
    """How far training has come; all of it is in the checkpoint."""

    epoch: int = 0
    step: int = 0
    train_loss: list[float] = field(default_factory=list)
    valid_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0

    def is_over(self, how: Training) -> bool:
        """Tell whether all epochs are done, or enough without a better valid loss."""
        is_stopped = bool(self.valid_loss) and self.epoch - self.best_epoch >= how.stopping_step
        return self.epoch >= how.epochs or is_stopped


class Trainer:
    """Trains the parameters of an engine's model that require gradients.

    Args:
        engine: With the model.
        labels: All answers.
        examples: (row, epoch) -> the row's examples.
        n_rows: Rows to train on.
        how: Losses, steps and lengths.
    """

    def __init__(
        self,
        engine: LocalEngine,
        labels: Sequence[str],
        examples: Callable[[int, int], list[Example]],
        n_rows: int,
        how: Training,
    ) -> None:
        self.engine, self.labels, self.examples = engine, labels, examples
        self.n_rows, self.how = n_rows, how
        named = engine.model.named_parameters()
        self.parameters = {name: p for name, p in named if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=how.learning_rate, weight_decay=how.weight_decay
        )
        self.progress = Progress()
        self._best: dict[str, Tensor] = {}
        self._to_check = True

    def fit(
        self, valid_loss: Callable[[], float] | None, folder: Path, identity: str
    ) -> Mapping[str, Any]:
        """Train, and leave the best epoch's weights in the model.

        Args:
            valid_loss: The loss to stop by; without it the last epoch is the best.
            folder: Where the state is kept after each epoch, and taken up from.
            identity: Hash of data and settings; the state of another training is refused.

        Raises:
            UserError: The folder holds another training, or no gradient reaches the weights.
        """
        self._resume(folder / FILE, identity)
        with torch.random.fork_rng():
            while not self.progress.is_over(self.how):
                self._epoch()
                self._judge(valid_loss)
                self._keep(folder / FILE, identity)
        self._load(self._best)
        self.engine.model.eval()
        told = {key: value for key, value in vars(self.progress).items() if key != "step"}
        return {**told, "steps": self.progress.step}

    def _epoch(self) -> None:
        epoch, how = self.progress.epoch, self.how
        torch.manual_seed(how.seed + epoch)
        order = np.random.default_rng((how.seed, epoch)).permutation(self.n_rows)  # [rows]
        self.engine.model.train()
        losses = []
        bar = tqdm(
            list(_parts(order, how.batch_size * how.accumulation_steps)),
            desc=f"epoch {epoch + 1}",
            unit="step",
            disable=not how.show_progress,
        )
        for rows in bar:
            losses.append(self._step([int(row) for row in rows]))
            bar.set_postfix(loss=f"{losses[-1]:.4f}")
        self.engine.model.eval()
        self.progress.train_loss.append(sum(losses) / len(losses))
        self.progress.epoch += 1

    def _step(self, rows: Sequence[int]) -> float:
        """Take an optimizer step by the mean loss over the examples of some rows."""
        how, progress = self.how, self.progress
        parts = [
            [example for row in part for example in self.examples(row, progress.epoch)]
            for part in _parts(rows, how.batch_size)
        ]
        n, total = sum(map(len, parts)), 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for part in parts:
            loss = self.loss(part) * len(part) / n  # the same whatever is accumulated
            loss.backward()
            total += loss.item()
        if self._to_check:
            check_gradients(self.parameters, total)
            self._to_check = False
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), how.clip_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = how.learning_rate * self._factor()
        self.optimizer.step()
        progress.step += 1
        return total

    def _factor(self) -> float:
        """Return the part of the learning rate at this step: up in the warm-up, then down to 0."""
        how = self.how
        total = how.epochs * math.ceil(self.n_rows / (how.batch_size * how.accumulation_steps))
        warmup, step = math.ceil(how.warmup_ratio * total), self.progress.step
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return (total - step) / max(total - warmup, 1)

    def loss(self, examples: Sequence[Example]) -> Tensor:
        """Return the mean cross-entropy of the answers."""
        engine, prompt = self.engine, examples[0].prompt
        hidden = engine.last_hidden([engine.reader.encode(one.prompt) for one in examples])
        answers = torch.tensor([one.answer for one in examples], device=hidden.device)  # [B]
        labels = self.labels[: max(one.n_labels for one in examples)]
        if self.how.loss == "lm":
            tokens = torch.tensor(engine.tokens_of(prompt, labels), device=hidden.device)
            return F.cross_entropy(engine.all_logits(hidden), tokens[answers])
        logits = engine.label_logits(hidden, prompt, labels)  # [B, labels]
        n = torch.tensor([one.n_labels for one in examples], device=hidden.device)  # [B]
        is_there = torch.arange(len(labels), device=hidden.device) < n[:, None]  # [B, labels]
        return F.cross_entropy(logits.masked_fill(~is_there, -torch.inf), answers)

    def _judge(self, valid_loss: Callable[[], float] | None) -> None:
        """Note the valid loss, and keep the weights if they are the best."""
        progress = self.progress
        if valid_loss is not None:
            progress.valid_loss.append(valid_loss())
            logging.getLogger().info(
                "epoch %d: train loss %.4f, valid loss %.4f",
                *(progress.epoch, progress.train_loss[-1], progress.valid_loss[-1]),
            )
            self._to_check = True
        if not progress.valid_loss or progress.valid_loss[-1] == min(progress.valid_loss):
            progress.best_epoch = progress.epoch
            self._best = self._weights()

    def _weights(self) -> dict[str, Tensor]:
        return {name: p.detach().cpu().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Tensor]) -> None:
        for name, value in weights.items():
            self.parameters[name].copy_(value)

    def _keep(self, path: Path, identity: str) -> None:
        state = {
            "identity": identity,
            "progress": vars(self.progress),
            "weights": self._weights(),
            "best": self._best,
            "optimizer": self.optimizer.state_dict(),
        }
        write_checkpoint(path, state)

    def _resume(self, path: Path, identity: str) -> None:
        if not path.exists():
            return
        try:
            state = read_checkpoint(path)
            kept = state["identity"]
        except (UserError, KeyError) as error:
            raise UserError(
                f"{path}, the state of a training that was broken off, is damaged; delete it, and "
                "the training begins anew"
            ) from error
        if kept != identity:
            raise UserError(
                f"{path} is the state of a training with other data, settings or weights; delete "
                "it, or train into another folder"
            )
        self.progress = Progress(**state["progress"])
        self._load(state["weights"])
        self._best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])


def _parts(rows: Sequence[int] | np.ndarray, size: int) -> Iterator[Any]:
    for begin in range(0, len(rows), size):
        yield rows[begin : begin + size]
