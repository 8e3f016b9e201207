"""From several vectors of a row to one, where some of them do not count."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recbole_ext.types import UserError

POOLINGS = ("mean", "attention")


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Return weights [..., T] that sum to one over what counts; all zeros where nothing does.

    Args:
        logits: [..., T].
        mask: Which of them count, bool, broadcast to the shape of ``logits``.
    """
    some = mask.any(-1, keepdim=True)  # [..., 1]
    # a row of -inf would be 0/0: it is left whole, and its weights are put to zero
    logits = logits.masked_fill(~mask & some, -math.inf)  # [..., T]
    return logits.softmax(-1) * some


class TokenPooling(nn.Module):
    """[B, T, D] -> [B, D]: the images of an item, the tokens of a long text.

    Args:
        hidden_size: D.
        kind: ``mean``, or ``attention``: weights by a learned direction, at first all alike.

    Raises:
        UserError: ``kind`` is neither.
    """

    def __init__(self, hidden_size: int, kind: str = "attention") -> None:
        super().__init__()
        if kind not in POOLINGS:
            raise UserError(f"pooling: '{kind}' is none of {', '.join(POOLINGS)}")
        self.score: nn.Linear | None = None
        if kind == "attention":
            self.score = nn.Linear(hidden_size, 1, bias=False)
            nn.init.zeros_(self.score.weight)

    def forward(self, tokens: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
        """Pool the tokens that count.

        Args:
            tokens: [B, T, D].
            mask: Which of them count [B, T].
            bias: Added to the logits of the weights [B, T].

        Returns:
            [B, D]; zeros where nothing counts.
        """
        logits = torch.zeros_like(tokens[..., 0]) if bias is None else bias  # [B, T]
        if self.score is not None:
            logits = logits + self.score(tokens).squeeze(-1)  # [B, T]
        weights = masked_softmax(logits, mask)  # [B, T]
        return (weights.unsqueeze(1) @ tokens).squeeze(1)  # [B, D]
