"""Mixing what an encoder predicts with what the retrieved neighbours went on to.

``probability`` (Khandelwal et al., kNN-LM, ICLR 2020): p = (1 - a) softmax(h E^T) + a sum_k w_k
1[t_k], over the neighbours' targets t_k. ``vector``: logits ((1 - a) h + a sum_k w_k E[t_k]) E^T.
Weights of missing neighbours are 0 and a is 0 for rows without any, so nothing here is ever NaN.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-30
SCORE_ROWS = 512
"""Rows of scores mixed at a time, which bounds the temporary [rows, N]."""


def label_mass(weights: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """Return the retrieval probability of one item per row: sum_k w_k 1[t_k = label].

    Args:
        weights: [B, K].
        targets: Items that the neighbours lead to [B, K].
        labels: [B].

    Returns:
        [B].
    """
    return (weights * (targets == labels[:, None])).sum(1)


def mixture_log_prob(log_prob: Tensor, mass: Tensor, alpha: Tensor) -> Tensor:
    """Return log((1 - a) p + a m), all [B]: p the recommender's, m the neighbours' probability."""
    return ((1 - alpha) * log_prob.exp() + alpha * mass).clamp_min(TINY).log()


@torch.no_grad()
def mixture_scores(logits: Tensor, weights: Tensor, targets: Tensor, alpha: Tensor) -> Tensor:
    """Return the log-probabilities of the mixture over all items, up to a constant in each row.

    The constant (log-sum-exp of the logits) is left in, so that a row with alpha 0 keeps its logits
    bit for bit.

    Args:
        logits: [B, N]; -inf for items that must never rank. Overwritten.
        weights: [B, K].
        targets: [B, K].
        alpha: [B], below 1.

    Returns:
        [B, N], the tensor that was given as ``logits``.
    """
    for rows in torch.arange(len(logits), device=logits.device).split(SCORE_ROWS):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        score, target, a = logits[part], targets[part], alpha[part, None]
        scale = score.logsumexp(1, keepdim=True)  # [b, 1]
        mass = torch.zeros_like(score).scatter_add_(1, target, weights[part])  # [b, N]
        mass = mass.gather(1, target)  # [b, K], summed over neighbours that share a target
        score += torch.log1p(-a)
        mixed = torch.logaddexp(score.gather(1, target), a.log() + mass.log() + scale)  # [b, K]
        score.scatter_(1, target, mixed.masked_fill(target == 0, float("-inf")))  # 0 is padding
    return logits


def mix_vectors(states: Tensor, weights: Tensor, target_emb: Tensor, alpha: Tensor) -> Tensor:
    """Return (1 - a) h + a sum_k w_k e_k for states h [B, D] and target_emb [B, K, D]: [B, D]."""
    retrieved = torch.einsum("bk,bkd->bd", weights, target_emb)  # [B, D]
    return (1 - alpha)[:, None] * states + alpha[:, None] * retrieved  # [B, D]


def mixture_label_scores(log_prob: Tensor, is_label: Tensor, alpha: Tensor) -> Tensor:
    """Return log p(label | neighbour k alone) under the probability mix.

    Args:
        log_prob: The recommender's log p(label) [B].
        is_label: Whether neighbour k leads to the label [B, K].
        alpha: [B].

    Returns:
        [B, K].
    """
    rest = (1 - alpha) * log_prob.exp()  # [B]
    return (rest[:, None] + alpha[:, None] * is_label).clamp_min(TINY).log()


@torch.no_grad()
def vector_label_scores(
    states: Tensor, target_emb: Tensor, item_weight: Tensor, labels: Tensor, alpha: Tensor
) -> Tensor:
    """Return log p(label | neighbour k alone) under the vector mix, one neighbour at a time.

    Args:
        states: [B, D].
        target_emb: Embeddings of the neighbours' targets [B, K, D].
        item_weight: [N, D]; row 0 is the padding item and takes no part.
        labels: [B].
        alpha: [B].

    Returns:
        [B, K].
    """
    columns = []
    for k in range(target_emb.shape[1]):
        alone = (1 - alpha)[:, None] * states + alpha[:, None] * target_emb[:, k]  # [B, D]
        columns.append(-F.cross_entropy(alone @ item_weight[1:].T, labels - 1, reduction="none"))
    return torch.stack(columns, dim=1)  # [B, K]


def retrieval_kl(log_weights: Tensor, scores: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return KL(P || Q), the mean over rows: P the retrieval weights, Q = softmax(scores / b).

    Shi et al., REPLUG (arXiv:2301.12652), equation 6, with the label-based scores of its section 4.

    Args:
        log_weights: log P [B, K].
        scores: What Q is made of [B, K]; no gradient passes.
        valid: [B, K]; rows without a valid neighbour count as 0.
        temperature: b.

    Returns:
        Scalar; only ``log_weights`` gets a gradient.
    """
    scores = (scores.detach().float() / temperature).masked_fill(~valid, -1e9)  # [B, K]
    log_target = F.log_softmax(scores, dim=-1)  # [B, K]
    terms = log_weights.exp() * (log_weights - log_target)  # [B, K]
    return torch.where(valid, terms, torch.zeros_like(terms)).sum() / len(terms)
