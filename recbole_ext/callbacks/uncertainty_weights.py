"""Weighs named losses by learned uncertainties."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from recbole_ext.callbacks.base import Callback
from recbole_ext.callbacks.loss_curriculum import check_losses
from recbole_ext.types import TrainState, UserError


class UncertaintyWeights(Callback):
    """Replaces each named loss L by exp(-s) L + s / 2, with s learned beside the model.

    s is the log-variance of the loss: Kendall, Gal and Cipolla, "Multi-Task Learning Using
    Uncertainty to Weigh Losses for Scene Geometry and Semantics", CVPR 2018, section 3.2, the term
    of a cross-entropy (1 / sigma^2 L + log sigma, s = log sigma^2); for a squared error the paper
    has half the weight, which moves the optimum of s by log 2 and no gradient of the model there.
    At the optimum exp(s) = 2 L, so each loss contributes on its own scale.

    Attributes:
        log_variances: Loss name -> s, a scalar; all begin at 0.
    """

    one_process_only = "each would learn weights of its own"

    def __init__(
        self,
        names: list[str],
        min_log_variance: float = -5.0,
        max_log_variance: float = 5.0,
    ) -> None:
        """Take the losses.

        Args:
            names: The losses to weigh; they must not be negative.
            min_log_variance: Lower clamp of s: the weight is at most exp of its negative.
            max_log_variance: Upper clamp of s.
        """
        if not min_log_variance <= 0 <= max_log_variance:
            raise UserError(
                "UncertaintyWeights: the log-variances begin at 0, which is not between "
                f"min_log_variance {min_log_variance} and max_log_variance {max_log_variance}"
            )
        self._min, self._max = min_log_variance, max_log_variance
        # One parameter each, so that the one whose loss is out of play has no gradient at all.
        self.log_variances = {name: nn.Parameter(torch.zeros(())) for name in names}

    def on_fit_start(self, state: TrainState) -> None:
        """Put the log-variances in the optimizer, without the weight decay that pulls them to 0.

        A checkpoint is restored after this, and the optimizer's state of them with it.
        """
        device = next(state.model.parameters()).device
        for parameter in self.log_variances.values():
            parameter.data = torch.zeros((), device=device)
        known = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
        new = [p for p in self.log_variances.values() if id(p) not in known]
        if new:
            state.optimizer.add_param_group({"params": new, "weight_decay": 0.0})

    def on_loss(self, state: TrainState) -> None:
        """Weigh the losses.

        Raises:
            UserError: A name that is no loss of the model, or a negative loss.
        """
        check_losses(self.log_variances, state.losses, "UncertaintyWeights.names")
        for name, s in self.log_variances.items():
            loss = state.losses[name]
            if not loss.requires_grad:  # trains nothing, as one that Alternate has put aside
                continue
            if loss.detach() < 0:  # RecBole reads the loss of every batch too
                raise UserError(
                    f"UncertaintyWeights: the loss '{name}' is negative ({loss.item():g}); "
                    "its weight would grow without end, so take it out of names"
                )
            state.losses[name] = torch.exp(-s) * loss + 0.5 * s

    def on_batch_end(self, state: TrainState) -> None:
        """Clamp after the step: clamped in the forward pass, s would have no way back."""
        with torch.no_grad():
            for parameter in self.log_variances.values():
                parameter.clamp_(self._min, self._max)

    def on_epoch_end(self, state: TrainState) -> None:
        """Log the log-variances."""
        for name, parameter in self.log_variances.items():
            state.log(f"log_variance/{name}", parameter.item(), state.step)

    def state_dict(self) -> dict[str, Any]:
        """Return the log-variances."""
        return {name: s.detach().clone() for name, s in self.log_variances.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back, into the parameters that the optimizer has."""
        with torch.no_grad():
            for name, parameter in self.log_variances.items():
                parameter.copy_(state[name])
