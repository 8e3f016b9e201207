"""Weighs named losses by learned uncertainties."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_ext.callbacks.base import Callback
from recbole_ext.callbacks.loss_names import LossNames
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
        self._names = LossNames((name, "UncertaintyWeights.names") for name in self.log_variances)
        self._lowest: dict[str, Tensor] = {}

    def on_fit_start(self, state: TrainState) -> None:
        """Put the log-variances in the optimizer, without the weight decay that pulls them to 0.

        A checkpoint is restored after this, and the optimizer's state of them with it.

        Raises:
            UserError: The trainer has several optimizers.
        """
        if state.n_optimizers > 1:
            raise UserError(
                f"UncertaintyWeights: the trainer of {type(state.model).__name__} has "
                f"{state.n_optimizers} optimizers, and the weights can be in one only; "
                "remove UncertaintyWeights from the callbacks"
            )
        self._names.reset()
        self._lowest = {}
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
        for name in self._names.in_batch(state):
            loss, s = state.losses[name], self.log_variances[name]
            if not loss.requires_grad:  # trains nothing, as one that Alternate has put aside
                continue
            self._watch(name, loss.detach())
            state.losses[name] = torch.exp(-s) * loss + 0.5 * s

    def on_batch_end(self, state: TrainState) -> None:
        """Clamp after the step: clamped in the forward pass, s would have no way back."""
        with torch.no_grad():
            for parameter in self.log_variances.values():
                parameter.clamp_(self._min, self._max)

    def on_epoch_end(self, state: TrainState) -> None:
        """Log the log-variances; look whether a loss was negative."""
        self._names.end_epoch(state)
        for name in self._lowest:
            self._refuse_negative(name)
        self._lowest = {}
        for name, parameter in self.log_variances.items():
            state.log(f"log_variance/{name}", parameter.item(), state.step)

    def _watch(self, name: str, loss: Tensor) -> None:
        """Keep the lowest value where it is: a look at each batch would wait for the device."""
        lowest = self._lowest.get(name)
        self._lowest[name] = loss.clone() if lowest is None else torch.minimum(lowest, loss)
        if lowest is None:  # one look at the first batch of the epoch, which shows most mistakes
            self._refuse_negative(name)

    def _refuse_negative(self, name: str) -> None:
        lowest = self._lowest[name].item()
        if lowest < 0:
            raise UserError(
                f"UncertaintyWeights: the loss '{name}' is negative ({lowest:g}); "
                "its weight would grow without end, so take it out of names"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the log-variances."""
        return {name: s.detach().clone() for name, s in self.log_variances.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back, into the parameters that the optimizer has."""
        with torch.no_grad():
            for name, parameter in self.log_variances.items():
                parameter.copy_(state[name])
