"""Softmax cross-entropy over many items: exact in bounded memory, or estimated from a sample."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recbole_ext.types import UserError

CPU_ROWS = 128
"""Most rows of logits at once on a CPU: so that the logits of a small catalogue stay in cache."""

LOW_SCALE = 256.0
"""Probabilities are multiplied by it in a 16-bit type: float16 has little room at both ends. One in
a million items keeps its digits, and a mean of weights up to 255 does not overflow."""

PROPOSALS = ("uniform", "popularity")
"""How the items of a sampled softmax are drawn."""


def chunked_cross_entropy(
    states: Tensor, item_weight: Tensor, targets: Tensor, memory_mib: float = 64.0
) -> Tensor:
    """Cross-entropy of ``states @ item_weight.T`` that never holds all of these logits.

    Loss and gradients are computed together, some rows at a time: [rows, N] numbers where
    ``F.cross_entropy`` holds three times [B, N]. Under autocast the products that give the logits
    and the gradient of ``states`` are in its type; the softmax, the gradient of ``item_weight`` and
    all sums over rows are in float32. Without gradients (``torch.no_grad``) none is computed.

    Args:
        states: [B, D].
        item_weight: [N, D].
        targets: Rows of ``item_weight`` [B].
        memory_mib: MiB of logits to hold at once; one row is held in any case.

    Returns:
        Mean over the batch, a scalar; not a number for an empty batch, as in ``F.cross_entropy``.
    """
    rows = max(1, int(memory_mib * (1 << 20)) // (4 * max(1, len(item_weight))))
    if states.device.type == "cpu":
        rows = min(rows, CPU_ROWS)
    return _ChunkedCrossEntropy.apply(states, item_weight, targets, rows, torch.is_grad_enabled())


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The gradients are found in the forward pass, for a loss of weight one."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, rows: int, with_grad: bool
    ) -> Tensor:
        device, mean = states.device.type, 1.0 / len(states) if len(states) else math.nan
        exact = torch.promote_types(torch.float32, weight.dtype)
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else exact
        d_states, d_weight = (
            torch.zeros_like(x, dtype=exact) if with_grad and needed else None
            for x, needed in zip((states, weight), ctx.needs_input_grad, strict=False)
        )  # [B, D], [N, D]
        loss = torch.zeros((), dtype=exact, device=states.device)
        with torch.autocast(device, enabled=False):
            h, w = states.to(low), weight.to(low)  # [B, D], [N, D]
            for begin in range(0, len(states), rows):
                part, target = h[begin : begin + rows], targets[begin : begin + rows]
                logits = (part @ w.T).to(exact)  # [rows, N]
                top = logits.amax(1, keepdim=True)  # [rows, 1]
                of_target = logits.gather(1, target[:, None])  # [rows, 1]
                powers = logits.sub_(top).exp_()  # [rows, N], in the place of the logits
                sums = powers.sum(1, keepdim=True)  # [rows, 1]
                loss += (sums.log() + top - of_target).sum()
                # softmax less one-hot; what can be done to [rows, D] is not done to [rows, N]
                scale = mean / sums  # [rows, 1]
                if low != exact:
                    powers = powers.mul_(LOW_SCALE / sums).to(low)  # [rows, N]
                    scale = torch.full_like(sums, mean / LOW_SCALE)  # [rows, 1]
                if d_states is not None:
                    of_all, own = (powers @ w).to(exact), w[target].to(exact)  # 2 x [rows, D]
                    d_states[begin : begin + rows] = of_all * scale - own * mean
                if d_weight is not None:
                    part = part.to(exact)  # [rows, D]
                    d_weight.addmm_(powers.T.to(exact), part * scale)
                    d_weight.index_add_(0, target, part, alpha=-mean)
        ctx.save_for_backward(d_states, d_weight)
        ctx.types = states.dtype, weight.dtype
        return loss * mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Any, ...]:
        found = (
            None if d is None else (d * d_loss).to(dtype)
            for d, dtype in zip(ctx.saved_tensors, ctx.types, strict=True)
        )
        return (*found, None, None, None)


class ItemProposal(nn.Module):
    """The distribution that a sampled softmax draws items from, item 0 excepted.

    Args:
        counts: Occurrences of each item in the training rows [N].
        kind: ``uniform``, or ``popularity``: in proportion to the count plus one, so that every
            item can be drawn, without which the estimate would be biased.

    Raises:
        UserError: ``kind`` is neither.
    """

    log_q: Tensor
    cumulative: Tensor

    def __init__(self, counts: Tensor, kind: str = "uniform") -> None:
        super().__init__()
        if kind not in PROPOSALS:
            raise UserError(f"sampled_by: '{kind}' is none of {', '.join(PROPOSALS)}")
        weight = counts.double() + 1.0 if kind == "popularity" else torch.ones(len(counts)).double()
        weight[0] = 0.0
        q = weight / weight.sum()  # [N]
        self.register_buffer("log_q", q.log().float(), persistent=False)  # [N]
        self.register_buffer("cumulative", q.cumsum(0), persistent=False)  # [N]

    def forward(self, n: int) -> tuple[Tensor, Tensor]:
        """Return ``n`` items, drawn with replacement, and the logarithm of each one's odds."""
        drawn = torch.rand(n, dtype=torch.float64, device=self.cumulative.device)  # [S]
        items = torch.searchsorted(self.cumulative, drawn, right=True)  # [S]
        items = items.clamp_(max=len(self.cumulative) - 1)  # rounding may end the sum below one
        return items, self.log_q[items]


def sampled_cross_entropy(
    states: Tensor, item_weight: Tensor, targets: Tensor, sampled: Tensor, log_expected: Tensor
) -> Tensor:
    """Cross-entropy whose sum over the other items is estimated from some that are drawn.

    The importance sampling of Bengio and Senecal (IEEE TNN 2008): a drawn item's logit is lowered
    by the logarithm of its expected number of draws (the logQ correction, Yi et al., RecSys 2019),
    so that the sum over the draws is an unbiased estimate of the sum over all items but the target;
    draws that hit the target (accidental hits) are left out of it.

    Args:
        states: [B, D].
        item_weight: [N, D].
        targets: Item ids [B].
        sampled: Item ids [S], the same for all rows.
        log_expected: Logarithm of how often each of them is expected in the sample [S]: ``log S +
            log q`` for S draws with replacement from q, 0 where the sample is the whole catalogue.

    Returns:
        Mean over the batch, a scalar.
    """
    of_target = (states * item_weight[targets]).sum(1, keepdim=True)  # [B, 1]
    others = states @ item_weight[sampled].T  # [B, S]
    others = others.float() if others.dtype != torch.float64 else others
    others = others - log_expected  # [B, S]
    others = others.masked_fill(sampled[None, :] == targets[:, None], -math.inf)  # [B, S]
    logits = torch.cat([of_target.to(others.dtype), others], 1)  # [B, 1 + S]
    first = torch.zeros_like(targets)  # [B]
    return F.cross_entropy(logits, first)
