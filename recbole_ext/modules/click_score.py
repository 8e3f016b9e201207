"""From a user and news to the logit of a click: ``cos``, or ``dot``, above the prior's logit."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.modules.match_score import bounded_scale
from recbole_ext.types import UserError, suggest

SCORES = ("cos", "dot")


class ClickScore(nn.Module):
    """exp(log_scale) * cos(u, n) + b, or u . n + b, where b begins as logit(prior).

    A bare cosine cannot be a logit where few news are clicked: sigmoid(-1) is .27, so that the
    cross-entropy of non-clicks never falls below .313, and at 4 % clicks the constant of the
    prior's logit has .168 over all. There is no activation before the cosine.

    Args:
        kind: One of :data:`SCORES`.
        prior: Share of clicks among the rows of training, in (0, 1).
        scale: What a cosine is multiplied by at first; learned.
        is_bias_trained: ``False`` for a loss that only compares, which no bias changes.

    Raises:
        UserError: No such kind, or there are clicks alone, or none.
    """

    bias: Tensor

    def __init__(
        self, kind: str, prior: float, scale: float = 10.0, is_bias_trained: bool = True
    ) -> None:
        super().__init__()
        if kind not in SCORES:
            raise UserError(
                f"score: '{kind}' is none of {', '.join(SCORES)}{suggest(kind, SCORES)}"
            )
        if not 0 < prior < 1:
            raise UserError(
                f"a share of {prior:.0%} of the training rows are clicks, and a model learns from "
                "clicks beside non-clicks; see LABEL_FIELD"
            )
        bias = torch.tensor(math.log(prior / (1 - prior)))
        if is_bias_trained:
            self.bias = nn.Parameter(bias)
        else:
            self.register_buffer("bias", bias)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale))) if kind == "cos" else None

    def forward(self, user: Tensor, news: Tensor) -> Tensor:
        """Return logits [B, K] of users [B, D] and news [B, K, D], or [K, D] that all share."""
        if self.log_scale is None:
            return self._product(user, news) + self.bias  # [B, K]
        cosine = self._product(F.normalize(user, dim=-1), F.normalize(news, dim=-1))  # [B, K]
        return bounded_scale(self.log_scale) * cosine + self.bias

    @staticmethod
    def _product(user: Tensor, news: Tensor) -> Tensor:
        if news.dim() == 2:
            return user @ news.T  # [B, K]
        return (news @ user.unsqueeze(-1)).squeeze(-1)  # [B, K]
