"""What RecBole's special trainers do in an epoch: their steps, their tasks, loops of their own."""

from __future__ import annotations

from typing import Any

from recbole.trainer import (
    KGATTrainer,
    KGTrainer,
    MKRTrainer,
    NCLTrainer,
    RecVAETrainer,
)

from recbole_ext.callbacks.base import CallbackList
from recbole_ext.types import UserError

OWN_LOOPS = (NCLTrainer,)
"""Trainers whose ``_train_epoch`` copies RecBole's loop, so that no hook of ours is inside it."""


def check_hooks(trainer: Any, callbacks: CallbackList) -> None:
    """Refuse callbacks that a trainer would never call.

    Raises:
        UserError: Naming the trainer and the callbacks.
    """
    needing = callbacks.having("on_batch_start", "on_loss", "on_batch_end")
    if needing and isinstance(trainer, OWN_LOOPS):
        raise UserError(
            f"{type(trainer).__name__.removeprefix('Hooked')} has a training loop of its own, "
            f"without batch hooks; remove {', '.join(needing)} from callbacks"
        )


def steps_of_epoch(trainer: Any, train_data: Any, epoch: int) -> int:
    """Return the batches that a trainer takes an optimizer step on in an epoch."""
    n_batches = len(getattr(train_data, "general_dataloader", train_data))
    if isinstance(trainer, RecVAETrainer):  # encoder and decoder go over the data by turns
        return n_batches * (trainer.n_enc_epochs + trainer.n_dec_epochs)
    if isinstance(trainer, KGATTrainer):
        return n_batches + len(train_data.kg_dataloader)
    if isinstance(trainer, MKRTrainer) and epoch % trainer.kge_interval == 0:
        return n_batches + len(train_data.kg_dataloader)
    if isinstance(trainer, KGTrainer) and _takes_turns(trainer):
        cycle = trainer.train_rec_step + trainer.train_kg_step
        is_rec = epoch % cycle < trainer.train_rec_step
        return n_batches if is_rec else len(train_data.kg_dataloader)
    return n_batches


def epochs_to_all_losses(trainer: Any) -> int:
    """Return after how many epochs every loss has come up; 0 where each batch has them all."""
    if isinstance(trainer, KGTrainer) and _takes_turns(trainer):
        return trainer.train_rec_step + trainer.train_kg_step
    return 1 if isinstance(trainer, (KGATTrainer, MKRTrainer)) else 0


def _takes_turns(trainer: Any) -> bool:
    """Whether recommendation and knowledge have epochs of their own."""
    return trainer.train_rec_step is not None and trainer.train_kg_step is not None
