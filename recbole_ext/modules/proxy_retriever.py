"""UR4Rec's retriever: learned proxy tokens ask a memory of texts what a user prefers.

Blocks of self-attention -> cross-attention (K, V = Z) -> FFN, each with its residual and LayerNorm
after it, so that self-attention and FFN can be those of a BERT (Zhang, Zhu and Dou, UR4Rec, COLING
2025; the Q-Former of Li et al., BLIP-2, ICML 2023, is of this form). Items have no cross-attention:
they learn of the memory from the proxies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_ext.modules.attention import FeedForward, MultiHeadAttention
from recbole_ext.modules.cross_attention import CrossAttention
from recbole_ext.modules.dropout import Dropout
from recbole_ext.types import UserError


def check_n_proxies(n_proxies: int) -> None:
    """Refuse fewer than two proxies.

    Raises:
        UserError: Naming the setting.
    """
    if n_proxies < 2:
        raise UserError(
            f"n_proxies takes a number from 2, not {n_proxies}: a proxy attends to the others; "
            "take 8 or 16"
        )


def proxy_mask(n_proxies: int, n_items: int, device: torch.device | str = "cpu") -> Tensor:
    """Return who sees whom among [P; items], [K + n, K + n], row sees column.

    Proxies see all; an item sees the proxies and itself, and no other item.
    """
    mask = torch.eye(n_proxies + n_items, dtype=torch.bool, device=device)  # [K + n, K + n]
    mask[:n_proxies] = True
    mask[:, :n_proxies] = True
    return mask


class RetrieverBlock(nn.Module):
    """Self-attention, cross-attention of the proxies to the memory, feed-forward part.

    Args:
        hidden_size: Width of the tokens.
        memory_size: Width of the memory.
        n_heads: Attention heads.
        inner_size: Width of the feed-forward part.
        hidden_dropout_prob: Dropout of each part's output.
        attn_dropout_prob: Dropout of attention probabilities.
        hidden_act: Activation.
        layer_norm_eps: Added to the variance in LayerNorm.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        memory_size: int,
        n_heads: int,
        inner_size: int,
        hidden_dropout_prob: float,
        attn_dropout_prob: float,
        hidden_act: str,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(
            hidden_size, n_heads, hidden_dropout_prob, attn_dropout_prob, layer_norm_eps
        )
        self.cross_attention = CrossAttention(
            hidden_size, memory_size, n_heads=n_heads, attn_dropout_prob=attn_dropout_prob
        )
        self.dropout = Dropout(hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.feed_forward = FeedForward(
            hidden_size, inner_size, hidden_dropout_prob, hidden_act, layer_norm_eps
        )

    def forward(
        self, x: Tensor, seen: Tensor, n_proxies: int, memory: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """Map [B, S, d] to [B, S, d].

        Args:
            x: Proxies, then items.
            seen: Who sees whom [1, 1, S, S], bool.
            n_proxies: How many of the tokens are proxies.
            memory: Z [B, m, memory size], for the proxies.
            mask: What of it counts [B, m].
        """
        x = self.self_attention(x, mask=seen)  # [B, S, d]
        if n_proxies:
            assert memory is not None and mask is not None, "proxies ask a memory"
            proxies = x[:, :n_proxies]  # [B, K, d]
            found = self.cross_attention(proxies, memory, mask)  # [B, K, d]
            proxies = self.LayerNorm(proxies + self.dropout(found))  # [B, K, d]
            x = torch.cat([proxies, x[:, n_proxies:]], 1)  # [B, S, d]
        return self.feed_forward(x)


class ProxyRetriever(nn.Module):
    """Proxies alone, items alone, or both together.

    Args:
        blocks: The blocks.
        n_proxies: K, at least two: one would have no other to attend to.
        hidden_size: d, of the blocks.
        item_size: Width of the item embeddings that come in.
        hidden_dropout_prob: Dropout of what comes in.
        layer_norm_eps: Added to the variance in LayerNorm.

    Raises:
        UserError: Too few proxies.
    """

    def __init__(
        self,
        blocks: list[RetrieverBlock],
        *,
        n_proxies: int,
        hidden_size: int,
        item_size: int,
        hidden_dropout_prob: float = 0.0,
        layer_norm_eps: float = 1e-12,
    ) -> None:
        super().__init__()
        check_n_proxies(n_proxies)
        self.layer = nn.ModuleList(blocks)
        self.proxies = nn.Parameter(torch.randn(n_proxies, hidden_size))  # [K, d]
        self.item_projection = nn.Linear(item_size, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = Dropout(hidden_dropout_prob)
        self.match_head = nn.Linear(hidden_size, 1)

    @property
    def n_proxies(self) -> int:
        """K."""
        return len(self.proxies)

    def retrieve(self, memory: Tensor, mask: Tensor) -> Tensor:
        """Return the proxies of users, [B, K, d], for memories [B, m, .] and their masks [B, m]."""
        x = self.proxies.expand(len(memory), -1, -1)  # [B, K, d]
        return self._run(x, self.n_proxies, memory, mask)

    def encode_items(self, item_emb: Tensor) -> Tensor:
        """Return items by themselves: embeddings [n, D] -> [n, d]."""
        x = self.item_projection(item_emb).unsqueeze(1)  # [n, 1, d]
        return self._run(x, 0, None, None).squeeze(1)  # [n, d]

    def match(self, memory: Tensor, mask: Tensor, item_emb: Tensor) -> Tensor:
        """Return how well items suit users: embeddings [B, n, D] -> logits [B, n]."""
        items = self.item_projection(item_emb)  # [B, n, d]
        x = torch.cat([self.proxies.expand(len(items), -1, -1), items], 1)  # [B, K + n, d]
        found = self._run(x, self.n_proxies, memory, mask)[:, self.n_proxies :]  # [B, n, d]
        return self.match_head(found).squeeze(-1)  # [B, n]

    def _run(self, x: Tensor, n_proxies: int, memory: Tensor | None, mask: Tensor | None) -> Tensor:
        seen = proxy_mask(n_proxies, x.shape[1] - n_proxies, x.device)[None, None]  # [1, 1, S, S]
        x = self.dropout(self.LayerNorm(x))  # [B, S, d]
        for block in self.layer:
            x = block(x, seen, n_proxies, memory, mask)  # [B, S, d]
        return x
