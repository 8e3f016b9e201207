"""The encoder of LRURec: linear recurrent units where a Transformer has attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.modules.attention import FeedForward, check_stack, gather_positions
from recbole_ext.modules.dropout import Dropout
from recbole_ext.modules.linear_recurrence import (
    decay_of,
    linear_recurrence,
    product,
    ring_decay,
)
from recbole_ext.modules.losses import exact
from recbole_ext.modules.transformer import by_length


class LinearRecurrentUnit(nn.Module):
    """x -> Re(C h + c), h_t = lambda h_{t-1} + gamma (B x_t + b) (Orvieto et al., ICML 2023).

    B, C, b and h are complex. As x is real, B x + b is one real product with twice the width, and
    so is the real part of C h + c. The recurrence is in float32 at least, under autocast too.

    Args:
        hidden_size: D, of what comes in and out.
        state_size: H, complex numbers of a state.
    """

    def __init__(self, hidden_size: int, state_size: int) -> None:
        super().__init__()
        nu_log, theta_log = ring_decay(state_size)  # [H] each
        modulus = (-nu_log.exp()).exp()  # [H]
        self.nu_log, self.theta_log = nn.Parameter(nu_log), nn.Parameter(theta_log)
        self.gamma_log = nn.Parameter((1 - modulus.square()).log() / 2)  # [H], inputs of size one
        self.dense_in = nn.Linear(hidden_size, 2 * state_size)
        self.dense_out = nn.Linear(2 * state_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, L, D] to [B, L, D]."""
        states = linear_recurrence(self._inputs(x), self._decay())  # [B, L, H, 2]
        return self.dense_out(states.flatten(-2))

    def step(self, x: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output [B, D] for one more input [B, D], and h_t [B, H, 2] after h_{t-1}."""
        decayed = product(self._decay().unbind(-1), carry.unbind(-1))  # 2 x [B, H]
        carry = torch.stack(decayed, -1) + self._inputs(x)  # [B, H, 2]
        return self.dense_out(carry.flatten(-2)), carry

    def _inputs(self, x: Tensor) -> Tensor:
        pairs = exact(self.dense_in(x)).unflatten(-1, (-1, 2))  # [..., H, 2]
        return pairs * self.gamma_log.exp()[:, None]

    def _decay(self) -> Tensor:
        return decay_of(self.nu_log, self.theta_log)  # [H, 2]


class InnerDropoutFeedForward(FeedForward):
    """Two linear layers with dropout after each, residual and LayerNorm after them."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        inner = self.dropout(self.activation(self.dense_1(x)))  # [..., inner]
        return self.LayerNorm(self.dropout(self.dense_2(inner)) + x)


class LRUBlock(nn.Module):
    """A linear recurrent unit and a feed-forward part, both post-LN."""

    def __init__(
        self,
        *,
        hidden_size: int,
        inner_size: int,
        hidden_dropout_prob: float,
        unit_dropout_prob: float,
        hidden_act: str,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.unit = LinearRecurrentUnit(hidden_size, 2 * hidden_size)
        self.dropout = Dropout(unit_dropout_prob)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.feed_forward = InnerDropoutFeedForward(
            hidden_size, inner_size, hidden_dropout_prob, hidden_act, layer_norm_eps
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, L, D] to [B, L, D]."""
        return self._after_unit(self.unit(x), x)

    def step(self, x: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B, D] to [B, D], and what the unit carries [B, H, 2] to the next."""
        out, carry = self.unit.step(x, carry)  # [B, D], [B, H, 2]
        return self._after_unit(out, x), carry

    def _after_unit(self, out: Tensor, x: Tensor) -> Tensor:
        return self.feed_forward(self.LayerNorm(self.dropout(out) + x))


class LRUEncoder(nn.Module):
    """Item sequence -> state, as in LRURec (Yue et al., WSDM 2024, arXiv:2310.02367).

    Sequences are left-aligned and padded with item 0 on the right; nothing flows back from there.

    Args:
        n_items: Items, the padding item 0 included.
        hidden_size: D; a state of the recurrence has 2 D complex numbers.
        n_layers: Blocks, at least one.
        inner_size: Width of the feed-forward part.
        hidden_dropout_prob: Dropout of the embeddings and within the feed-forward part.
        unit_dropout_prob: Dropout of what a linear recurrent unit gives out.
        hidden_act: One of ``gelu``, ``relu``, ``swish``, ``tanh``, ``sigmoid``.
        layer_norm_eps: Added to the variance in every LayerNorm.
        initializer_range: Standard deviation of the initial weights, cut off at twice of it.

    Raises:
        UserError: An argument makes no sense; the message names it.
    """

    def __init__(
        self,
        *,
        n_items: int,
        hidden_size: int = 64,
        n_layers: int = 2,
        inner_size: int = 256,
        hidden_dropout_prob: float = 0.2,
        unit_dropout_prob: float = 0.2,
        hidden_act: str = "gelu",
        layer_norm_eps: float = 1e-5,
        initializer_range: float = 0.02,
    ) -> None:
        super().__init__()
        check_stack(n_layers, initializer_range)
        self.item_embedding = nn.Embedding(n_items, hidden_size, padding_idx=0)
        self.dropout = Dropout(hidden_dropout_prob)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.blocks = nn.ModuleList(
            LRUBlock(
                hidden_size=hidden_size,
                inner_size=inner_size,
                hidden_dropout_prob=hidden_dropout_prob,
                unit_dropout_prob=unit_dropout_prob,
                hidden_act=hidden_act,
                layer_norm_eps=layer_norm_eps,
            )
            for _ in range(n_layers)
        )
        self._draw(initializer_range)

    @torch.no_grad()
    def _draw(self, std: float) -> None:
        """Draw weights and biases from a normal that is cut off, as the authors' code does."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                for parameter in module.parameters():
                    nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std)
        self.item_embedding.weight[0].zero_()  # stays zero: padding_idx gives this row no gradient

    def embed(self, items: Tensor) -> Tensor:
        """Return the input of the blocks: item ids [...] -> [..., D]."""
        return self.LayerNorm(self.dropout(self.item_embedding(items)))

    def states(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Return the state of every prefix, [B, L], [B] -> [B, L, D]; junk at padded positions."""

        def encode(seq: Tensor, lengths: Tensor) -> Tensor:
            return F.pad(self._states(seq), (0, 0, 0, item_seq.size(1) - seq.size(1)))

        return by_length(encode, item_seq, item_seq_len)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Return the state after the last item.

        Args:
            item_seq: [B, L], left-aligned, padded with 0.
            item_seq_len: [B], each in 1..L.

        Returns:
            [B, D].
        """
        return by_length(
            lambda seq, lengths: gather_positions(self._states(seq), lengths - 1),
            item_seq,
            item_seq_len,
        )

    def start(self, n: int) -> Tensor:
        """Return what ``n`` histories without items carry, for :meth:`step`."""
        weight = self.item_embedding.weight
        pairs = 2 * weight.size(1), 2
        return weight.new_zeros(len(self.blocks), n, *pairs)  # [layers, B, H, 2]

    def step(self, items: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        """Add one item to each history; the time it takes does not depend on their lengths.

        Args:
            items: Item ids [B].
            carry: [layers, B, H, 2], of :meth:`start` or of the step before.

        Returns:
            The states [B, D] after these items, as :meth:`forward` has them, and the next
            ``carry``.
        """
        x, found = self.embed(items), []  # [B, D]
        for block, before in zip(self.blocks, carry, strict=True):
            x, after = block.step(x, before)  # type: ignore[operator]
            found.append(after)
        return x, torch.stack(found)  # [layers, B, H, 2]

    def _states(self, item_seq: Tensor) -> Tensor:
        x = self.embed(item_seq)  # [B, L, D]
        for block in self.blocks:
            x = block(x)  # [B, L, D]
        return x
