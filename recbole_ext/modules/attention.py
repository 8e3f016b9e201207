"""Blocks of a causal post-LN Transformer, with the parameter names of RecBole's own."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.modules.dropout import Dropout, dropout
from recbole_ext.types import UserError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
"""RecBole's names of ``hidden_act``, each as one fused operation."""


def check_heads(hidden_size: int, n_heads: int) -> None:
    """Check that the heads divide the width.

    Raises:
        UserError: They do not.
    """
    if hidden_size % n_heads:
        raise UserError(
            f"hidden_size: {hidden_size} is not a multiple of n_heads {n_heads}; change one of them"
        )


def check_stack(n_layers: int, initializer_range: float) -> None:
    """Check what every stack of blocks is given.

    Raises:
        UserError: There is no block, or nothing to draw weights with.
    """
    if n_layers < 1:
        raise UserError(f"n_layers: {n_layers} must be at least 1")
    if not initializer_range > 0:
        raise UserError(f"initializer_range: {initializer_range} must be greater than 0")


class MultiHeadAttention(nn.Module):
    """Self-attention with residual and LayerNorm after it (post-LN)."""

    def __init__(
        self,
        hidden_size: int,
        n_heads: int,
        hidden_dropout_prob: float,
        attn_dropout_prob: float,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        check_heads(hidden_size, n_heads)
        if not 0 <= attn_dropout_prob < 1:
            raise UserError(f"attn_dropout_prob: {attn_dropout_prob} is not in [0, 1)")
        self.n_heads = n_heads
        self.attn_dropout_prob = attn_dropout_prob
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.out_dropout = Dropout(hidden_dropout_prob)

    def forward(self, x: Tensor, last: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Attend causally, or as a mask says.

        Padding stands on the right, hence every key that a real position may see under the causal
        mask is real, and no padding mask is needed; what comes out at padded positions is never
        read.

        Args:
            x: [B, L, D].
            last: Positions [B] to attend from, or ``None`` for all of them.
            mask: Added to the attention scores [B, 1, L or 1, L], instead of the causal mask.

        Returns:
            [B, L, D], or [B, 1, D] with ``last``.
        """
        if last is None:
            q, k, v = self._project(x, self.query, self.key, self.value)  # 3 x [B, H, L, D/H]
        else:
            k, v = self._project(x, self.key, self.value)  # 2 x [B, H, L, D/H]
            if mask is None:
                seen = torch.arange(x.size(1), device=x.device) <= last.unsqueeze(1)  # [B, L]
                mask = seen[:, None, None, :]  # [B, 1, 1, L]
            elif mask.size(2) > 1:
                mask = gather_positions(mask[:, 0], last)[:, None, None, :]  # [B, 1, 1, L]
            x = gather_positions(x, last).unsqueeze(1)  # [B, 1, D]
            (q,) = self._project(x, self.query)  # [B, H, 1, D/H]
        context = self._attend(q, k, v, mask)  # [B, H, L or 1, D/H]
        context = context.transpose(1, 2).flatten(2)  # [B, L or 1, D]
        return self.LayerNorm(self.out_dropout(self.dense(context)) + x)

    def _project(self, x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
        weight = torch.cat([layer.weight for layer in layers])  # [m D, D], one product instead of m
        bias = torch.cat([layer.bias for layer in layers])  # [m D]
        out = F.linear(x, weight, bias).unflatten(
            -1, (len(layers), self.n_heads, -1)
        )  # [B, L, m, H, D/H]
        return out.permute(2, 0, 3, 1, 4).unbind()  # m x [B, H, L, D/H]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        p = self.attn_dropout_prob if self.training else 0.0
        if mask is not None and mask.is_floating_point():
            mask = mask.to(q.dtype)  # lower under autocast
        if p == 0.0 or q.device.type != "cpu":
            return F.scaled_dot_product_attention(
                q, k, v, mask, dropout_p=p, is_causal=mask is None
            )
        # With dropout no fused CPU kernel applies, and PyTorch's dropout is slow: spell it out.
        scores = (q / math.sqrt(q.size(-1))) @ k.transpose(-1, -2)  # [B, H, L or 1, L]
        if mask is None:
            mask = torch.ones(
                q.size(-2), k.size(-2), dtype=torch.bool, device=q.device
            ).tril()  # [L, L]
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -math.inf)  # [B, H, L or 1, L]
        else:
            scores = scores + mask  # [B, H, L or 1, L]
        return dropout(scores.softmax(-1), p) @ v  # [B, H, L or 1, D/H]


class FeedForward(nn.Module):
    """Two linear layers with residual and LayerNorm after them (post-LN)."""

    def __init__(
        self,
        hidden_size: int,
        inner_size: int,
        hidden_dropout_prob: float,
        hidden_act: str,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        if hidden_act not in ACTIVATIONS:
            raise UserError(f"hidden_act: '{hidden_act}' is none of {', '.join(ACTIVATIONS)}")
        self.dense_1 = nn.Linear(hidden_size, inner_size)
        self.dense_2 = nn.Linear(inner_size, hidden_size)
        self.activation = ACTIVATIONS[hidden_act]
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = Dropout(hidden_dropout_prob)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return self.LayerNorm(self.dropout(self.dense_2(self.activation(self.dense_1(x)))) + x)


class TransformerLayer(nn.Module):
    """One block: attention, then the feed-forward part."""

    def __init__(
        self,
        *,
        hidden_size: int,
        n_heads: int,
        inner_size: int,
        hidden_dropout_prob: float,
        attn_dropout_prob: float,
        hidden_act: str,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.multi_head_attention = MultiHeadAttention(
            hidden_size, n_heads, hidden_dropout_prob, attn_dropout_prob, layer_norm_eps
        )
        self.feed_forward = FeedForward(
            hidden_size, inner_size, hidden_dropout_prob, hidden_act, layer_norm_eps
        )

    def forward(self, x: Tensor, last: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Map [B, L, D] to [B, L, D], or to [B, 1, D] when only ``last`` [B] are wanted.

        ``mask`` [B, 1, L or 1, L] is added to the attention scores instead of the causal mask.
        """
        return self.feed_forward(self.multi_head_attention(x, last, mask))


def gather_positions(x: Tensor, positions: Tensor) -> Tensor:
    """Pick one position of each row: [B, L, D] and [B] -> [B, D]."""
    return x[torch.arange(len(x), device=x.device), positions]
