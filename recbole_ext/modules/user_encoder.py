"""A user as attention over the clicked news: ``additive``, or ``multi_head`` before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.modules.attention import check_heads
from recbole_ext.modules.pooling import masked_softmax
from recbole_ext.types import UserError, suggest

USER_ENCODERS = ("additive", "multi_head")


class AdditiveAttention(nn.Module):
    """A weighted mean, the weights softmax(q . tanh(W x + b)) (Wu et al., NRMS, equation 5).

    Args:
        hidden_size: D.
        query_size: Width of q.
    """

    def __init__(self, hidden_size: int, query_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(hidden_size, query_size)
        self.query = nn.Linear(query_size, 1, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Pool what counts, [B, L, D] under a mask [B, L], to [B, D]; zeros where nothing does."""
        logits = self.query(torch.tanh(self.project(x))).squeeze(-1)  # [B, L]
        return (masked_softmax(logits, mask).unsqueeze(1) @ x).squeeze(1)  # [B, D]


class UserEncoder(nn.Module):
    """Clicked news -> user (Wu et al., NRMS, EMNLP-IJCNLP 2019, section 2.2).

    The order of the clicks is not read, and there is no residual: both as in the paper. Who has
    clicked nothing that says something has a learned vector.

    Args:
        kind: One of :data:`USER_ENCODERS`.
        hidden_size: D.
        n_heads: Of ``multi_head``.
        query_size: Width of the attention's query.

    Raises:
        UserError: No such kind, or a width that the heads do not divide.
    """

    def __init__(self, kind: str, hidden_size: int, n_heads: int, query_size: int) -> None:
        super().__init__()
        if kind not in USER_ENCODERS:
            raise UserError(
                f"user_encoder: '{kind}' is none of {', '.join(USER_ENCODERS)}"
                f"{suggest(kind, USER_ENCODERS)}"
            )
        self.n_heads = n_heads
        self.heads: nn.ModuleDict | None = None
        if kind == "multi_head":
            check_heads(hidden_size, n_heads)
            names = ("query", "key", "value")
            self.heads = nn.ModuleDict({n: nn.Linear(hidden_size, hidden_size) for n in names})
        self.pooling = AdditiveAttention(hidden_size, query_size)
        self.empty = nn.Parameter(torch.randn(hidden_size) * 0.1)

    def forward(self, clicked: Tensor, mask: Tensor) -> Tensor:
        """Encode histories.

        Args:
            clicked: Vectors of the clicked news [B, L, D].
            mask: Which of them count [B, L].

        Returns:
            [B, D].
        """
        if self.heads is not None:
            clicked = self._attend(clicked, mask)  # [B, L, D]
        some = mask.any(1, keepdim=True)  # [B, 1]
        return torch.where(some, self.pooling(clicked, mask), self.empty)  # [B, D]

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        """Let every click look at all that count, [B, L, D] -> [B, L, D]."""
        assert self.heads is not None
        q, k, v = (
            layer(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # [B, H, L, D/H]
            for layer in self.heads.values()
        )
        # a row of nothing would be 0/0: it sees all, and is pooled to the learned vector
        seen = mask | ~mask.any(1, keepdim=True)  # [B, L]
        found = F.scaled_dot_product_attention(q, k, v, seen[:, None, None, :])  # [B, H, L, D/H]
        return found.transpose(1, 2).flatten(2)  # [B, L, D]
