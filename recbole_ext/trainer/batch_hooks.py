"""The hooks inside an epoch: around the loss function, and after each optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from recbole.trainer import Trainer
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from recbole_ext.callbacks.base import CallbackList
from recbole_ext.models.base import ExtRecommender
from recbole_ext.registry import is_accelerated
from recbole_ext.trainer.compiled import compiled
from recbole_ext.trainer.fast_step import NAN_CHECK_STEPS, fuse, read, unread
from recbole_ext.trainer.prefetch import OnDevice
from recbole_ext.types import Losses, TrainState, UserError


class BatchHooks(Trainer):
    """RecBole's Trainer, calling the batch hooks; its special trainers are put in front of it.

    ``state``, ``callbacks`` and the sums come from ``RunHooks``.
    """

    state: TrainState
    callbacks: CallbackList
    clip_grad_norm: dict[str, Any] | None
    _loss_sums: dict[str, tuple[Any, int]]

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = super()._build_optimizer(**kwargs)
        is_ours = isinstance(self.model, ExtRecommender)
        is_fast = is_ours or is_accelerated(self.config, self.config.model_class)
        return fuse(optimizer) if is_fast else optimizer

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: Callable | None = None,
        show_progress: bool = False,
    ) -> Any:
        self.state.optimizer = self.optimizer  # RecVAE's trainer has one for each half
        if self.device.type == "cuda":
            train_data = OnDevice(train_data, self.device)
        handle = self.optimizer.register_step_post_hook(self._after_step)
        try:
            with self._clip_after_unscale():
                total = super()._train_epoch(
                    train_data, epoch_idx, self._hooked(loss_func), show_progress
                )
        finally:
            handle.remove()
        total = read(total)
        self._refuse_nan(sum(total) if isinstance(total, tuple) else total)
        return total

    def _hooked(self, loss_func: Callable | None) -> Callable[[Any], Any]:
        """Return a loss function that calls the hooks around RecBole's or the model's own."""
        # a subclass that writes calculate_loss itself means it
        own = getattr(type(self.model), "calculate_loss", None)
        is_named = loss_func is None and own is ExtRecommender.calculate_loss
        named = self.model.losses if is_named else None
        compute = loss_func or self.model.calculate_loss
        name = (
            compute.__name__.removeprefix("calculate_")
            if "calculate" in compute.__name__
            else "loss"
        )
        if self.config["torch_compile"]:
            named, compute = named and compiled(named), compiled(compute)
        reweighted = bool(self.callbacks.having("on_loss"))

        def hooked(interaction: Any) -> Any:
            state = self.state
            state.batch, state.skip = interaction, False
            self.callbacks.run("on_batch_start", state)
            raw = named(interaction) if named else compute(interaction)
            state.losses = dict(raw) if named else named_losses(raw, name)
            self.callbacks.run("on_loss", state)
            self._count(state.losses)
            if not named and not reweighted:
                return unread(raw)  # RecBole's own, so that its sums are RecBole's to the bit
            losses = tuple(state.losses.values())
            if state.skip:  # RecBole's loop wants something to go back from: a zero of nobody's
                nothing = torch.zeros_like(losses[0], requires_grad=True)
                losses = (losses[0] + nothing, *losses[1:])
            return unread(losses if len(losses) > 1 else losses[0])

        return hooked

    def _count(self, losses: Losses) -> None:
        for name, loss in losses.items():
            if not isinstance(loss, Tensor):
                raise UserError(
                    f"{type(self.model).__name__}: its {name} is a {type(loss).__name__}, "
                    "and a scalar tensor is meant"
                )
        if not self.state.skip and not any(loss.requires_grad for loss in losses.values()):
            raise UserError(
                "nothing is left to train: no loss depends on a trainable parameter; "
                "see callbacks and freeze"
            )
        for name, loss in losses.items():
            value, count = self._loss_sums.get(name, (0.0, 0))
            self._loss_sums[name] = (value + loss.detach().double(), count + 1)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.state.step += 1
        self.callbacks.run("on_batch_end", self.state)

    @contextmanager
    def _clip_after_unscale(self) -> Iterator[None]:
        """Clip inside ``scaler.step``, after it has unscaled; RecBole clips what is scaled."""
        clip = self.clip_grad_norm
        if not (clip and self.enable_scaler):
            yield
            return

        def clip_gradients(optimizer: Any, args: Any, kwargs: Any) -> None:
            clip_grad_norm_(self.model.parameters(), **clip)

        handle = self.optimizer.register_step_pre_hook(clip_gradients)
        self.clip_grad_norm = None
        try:
            yield
        finally:
            self.clip_grad_norm = clip
            handle.remove()

    def _check_nan(self, loss: Tensor) -> None:
        if loss.device.type == "cpu":
            self._refuse_nan(loss)
        elif self.state.step % NAN_CHECK_STEPS == 0:  # a sum stays what it has become
            self._refuse_nan(sum(value for value, _ in self._loss_sums.values()))

    def _refuse_nan(self, loss: Any) -> None:
        if loss != loss:
            hint = (
                "(last.pt holds the epoch before)" if self.state.epoch else "and look at the data"
            )
            raise UserError(
                f"the training loss is not a number in epoch {self.state.epoch}, step "
                f"{self.state.step}; lower learning_rate or set clip_grad_norm: {{max_norm: 5}} "
                f"{hint}"
            )


def named_losses(raw: Any, name: str) -> dict[str, Any]:
    """Return a loss, or the parts of a tuple by number, under names."""
    if isinstance(raw, tuple):
        return {f"{name}{number}": part for number, part in enumerate(raw, 1)}
    return {name: raw}
