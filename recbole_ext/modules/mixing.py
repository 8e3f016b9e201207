"""Mixing what an encoder predicts with what the retrieved neighbours went on to.

With m(i) = sum_k w_k 1[t_k = i], the mass that the neighbours' targets t_k give to an item:
``probability`` (Khandelwal et al., kNN-LM, ICLR 2020): p = (1 - a) softmax(h E^T) + a m.
``log_linear`` (Klakow, Log-linear interpolation of language models, ICSLP 1998, with a floor under
m): p ~ softmax(h E^T) (1 + m / s)^a. ``vector``: logits ((1 - a) h + a sum_k w_k E[t_k]) E^T.
Weights of missing neighbours are 0 and a is 0 for rows without any, so nothing here is ever NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

NEGLIGIBLE = -1e9
"""Log of a probability that counts as zero: finite, so that no gradient is NaN."""
MOST_ALPHA = 1 - 1e-6
"""A gate that saturates still leaves the recommender something."""
SCORE_ROWS = 512
"""Rows of scores mixed at a time, which bounds the temporary [rows, N]."""


@dataclass(frozen=True)
class MixSettings:
    """How neighbours are weighed and mixed in.

    Attributes:
        alpha: a: the share of the neighbours, or their exponent where the mix is log-linear; a
            scalar, and 0 leaves them out.
        top_k: How many of them, the nearest first.
        temperature: Divides the cosines before the softmax over neighbours; a scalar.
        smoothing: s, the mass that counts as none; for the log-linear mix only.
    """

    alpha: float | Tensor
    top_k: int
    temperature: float | Tensor
    smoothing: float = 1.0


def label_log_mass(log_weights: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """Return the log retrieval probability of one item per row: log sum_k w_k 1[t_k = label].

    Args:
        log_weights: [B, K].
        targets: Items that the neighbours lead to [B, K], 0 where there is none.
        labels: [B], never 0.

    Returns:
        [B], :data:`NEGLIGIBLE` (and without gradient) where no neighbour leads to the label.
    """
    return log_weights.masked_fill(targets != labels[:, None], NEGLIGIBLE).logsumexp(1)


def mixture_log_prob(log_prob: Tensor, log_mass: Tensor, alpha: Tensor) -> Tensor:
    """Return log((1 - a) p + a m) without ever leaving the logs, so that no gradient vanishes.

    Args:
        log_prob: The recommender's log p(label) [B].
        log_mass: The neighbours' log m(label) [B].
        alpha: [B].

    Returns:
        [B].
    """
    return torch.logaddexp(_log_rest(alpha) + log_prob, _log_share(alpha) + log_mass)


def _log_share(alpha: Tensor) -> Tensor:
    """Return log a, :data:`NEGLIGIBLE` and without gradient at 0, where log has an infinite one."""
    is_zero = alpha <= 0
    return alpha.masked_fill(is_zero, 1.0).log().masked_fill(is_zero, NEGLIGIBLE)


def _log_rest(alpha: Tensor) -> Tensor:
    """Return log(1 - a)."""
    return torch.log1p(-alpha.clamp_max(MOST_ALPHA))


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
    for part in _parts(len(logits)):
        score, target, a = logits[part], targets[part], alpha[part, None]
        scale = score.logsumexp(1, keepdim=True)  # [b, 1]
        mass = _target_mass(score, weights[part], target)  # [b, K]
        score += _log_rest(a)
        mixed = torch.logaddexp(score.gather(1, target), a.log() + mass.log() + scale)  # [b, K]
        score.scatter_(1, target, mixed.masked_fill(target == 0, float("-inf")))  # 0 is padding
    return logits


@torch.no_grad()
def log_linear_scores(
    logits: Tensor, weights: Tensor, targets: Tensor, alpha: Tensor, smoothing: float
) -> Tensor:
    """Return the log-probabilities of the log-linear mix, up to a constant in each row.

    Args:
        logits: [B, N]; -inf for items that must never rank. Overwritten.
        weights: [B, K].
        targets: [B, K].
        alpha: a [B].
        smoothing: s, above 0.

    Returns:
        [B, N], the tensor that was given as ``logits``: with a log(1 + m / s) added, so that a row
        with alpha 0 keeps its logits bit for bit.
    """
    for part in _parts(len(logits)):
        score, target = logits[part], targets[part]
        mass = _target_mass(score, weights[part], target)  # [b, K]
        bonus = log_linear_bonus(mass, alpha[part, None], smoothing)  # [b, K]
        score.scatter_(1, target, score.gather(1, target) + bonus)
    return logits


def log_linear_bonus(mass: Tensor, alpha: float | Tensor, smoothing: float) -> Tensor:
    """Return a log(1 + m / s), what a mass adds to an item's log-probability, same shape."""
    return alpha * torch.log1p(mass / smoothing)


def _parts(n_rows: int) -> Iterator[slice]:
    return (slice(begin, begin + SCORE_ROWS) for begin in range(0, n_rows, SCORE_ROWS))


def _target_mass(score: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    """Return the mass [b, K] of each neighbour's target, summed over those that share it.

    Args:
        score: Of the items [b, N].
        weights: [b, K].
        target: [b, K].
    """
    mass = torch.zeros_like(score).scatter_add_(1, target, weights)  # [b, N]
    return mass.gather(1, target)  # [b, K]


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
    rest, share = _log_rest(alpha) + log_prob, _log_share(alpha)  # [B] each
    log_mass = torch.where(is_label, 0.0, NEGLIGIBLE)  # [B, K]
    return torch.logaddexp(rest[:, None], share[:, None] + log_mass)  # [B, K]


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
        valid: [B, K]; rows without a valid neighbour count as 0, and so do those that a caller
            leaves out by marking none of theirs.
        temperature: b.

    Returns:
        Scalar; only ``log_weights`` gets a gradient.
    """
    scores = (scores.detach().float() / temperature).masked_fill(~valid, -1e9)  # [B, K]
    log_target = F.log_softmax(scores, dim=-1)  # [B, K]
    terms = log_weights.exp() * (log_weights - log_target)  # [B, K]
    return torch.where(valid, terms, torch.zeros_like(terms)).sum() / len(terms)
