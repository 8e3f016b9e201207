"""Attention of some tokens to others, of which any number may be missing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.modules.attention import check_heads


class CrossAttention(nn.Module):
    """Multi-head attention [B, T, D] to [B, S, D']; the residual is the caller's.

    With a single key the softmax is 1 whatever the query is: Q and K are without effect and get no
    gradient. :mod:`recbole_ext.modules.fusion` refuses that.

    Args:
        hidden_size: D.
        memory_size: D', D when not given.
        n_heads: Attention heads; they divide ``hidden_size``.
        attn_dropout_prob: Dropout of the attention probabilities.

    Raises:
        UserError: The heads do not divide the width.
    """

    def __init__(
        self,
        hidden_size: int,
        memory_size: int | None = None,
        *,
        n_heads: int = 1,
        attn_dropout_prob: float = 0.0,
    ) -> None:
        super().__init__()
        check_heads(hidden_size, n_heads)
        memory_size = memory_size or hidden_size
        self.n_heads = n_heads
        self.attn_dropout_prob = attn_dropout_prob
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.key = nn.Linear(memory_size, hidden_size, bias=False)
        self.value = nn.Linear(memory_size, hidden_size, bias=False)
        self.dense = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Attend to what counts of the memory.

        Args:
            x: [B, T, D].
            memory: [B, S, D'], finite where it does not count too.
            mask: What of it counts [B, S].

        Returns:
            [B, T, D]; zeros for a row whose memory is empty.
        """
        some = mask.any(1)  # [B]
        # a row without keys attends to all of them, and what comes out is put to zero: no NaN,
        # neither in the values nor in the gradients
        seen = (mask | ~some[:, None])[:, None, None, :]  # [B, 1, 1, S]
        q, k, v = (
            layer(tokens).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.query, x), (self.key, memory), (self.value, memory))
        )  # [B, H, T, D/H], 2 x [B, H, S, D/H]
        p = self.attn_dropout_prob if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, seen, dropout_p=p)  # [B, H, T, D/H]
        found = self.dense(found.transpose(1, 2).flatten(2))  # [B, T, D]
        return torch.where(some[:, None, None], found, torch.zeros_like(found))
