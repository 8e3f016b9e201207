"""Choosing how to mix on held-out rows: alpha, the number of neighbours and the temperature.

For the probability mix the target's rank under every choice needs only the recommender's best
items, the neighbours' targets and the target itself, so a grid of a hundred choices costs little
more than one scoring.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Choice:
    """One way to mix: alpha, how many neighbours, the temperature of their weights."""

    alpha: float
    top_k: int
    temperature: float


@dataclass(frozen=True)
class HeldOut:
    """A batch of held-out rows with what the recommender and the search found for them.

    Attributes:
        logits: [B, N]; -inf for items that must never rank.
        similarity: [B, K], nearest first, -inf where there is no neighbour.
        targets: Items that the neighbours lead to [B, K], 0 where there is none.
        labels: What the users took [B].
        hidden: Items that the evaluation leaves out [B, L], 0 for none; never the label.
    """

    logits: Tensor
    similarity: Tensor
    targets: Tensor
    labels: Tensor
    hidden: Tensor | None = None


def grid(
    alphas: Iterable[float], top_ks: Iterable[int], temperatures: Iterable[float]
) -> list[Choice]:
    """Return all combinations, small alphas first; alpha 0 stands for one choice, not many."""
    ks, heats = sorted(set(top_ks)), sorted(set(temperatures))
    found = [Choice(a, k, t) for a in sorted(set(alphas)) if a > 0 for k in ks for t in heats]
    return [Choice(0.0, ks[-1], heats[-1]), *found] if 0 in set(alphas) else found


def ndcg(rank: Tensor, cutoff: int) -> Tensor:
    """Return NDCG@cutoff of a single relevant item whose rank (from 1) is given, same shape."""
    return torch.where(rank <= cutoff, 1 / torch.log2(rank + 1.0), torch.zeros(()))


@torch.no_grad()
def mixture_ranks(batch: HeldOut, choices: Sequence[Choice], cutoff: int) -> Tensor:
    """Return the label's rank under the probability mix for every choice.

    Only items that can share or take the place of a label within the cutoff are looked at: the
    neighbours' targets, and the ``2 cutoff + K`` best of the recommender, among which ``2 cutoff``
    are no neighbours' targets: were all of them as good as the label, the middle of their places
    would lie beyond the cutoff. A rank up to it is exact; a worse one is only known to be worse.

    Args:
        batch: Held-out rows.
        choices: Ways to mix; no ``top_k`` exceeds K.
        cutoff: Of the metric that the ranks are for.

    Returns:
        [choices, B].
    """
    log_prob = hide(batch.logits.log_softmax(1), batch)  # [B, N]
    n_best = min(2 * cutoff + 1 + batch.targets.shape[1], log_prob.shape[1])
    best = log_prob.topk(n_best, dim=1).indices  # [B, M]
    items = torch.cat([batch.labels[:, None], best, batch.targets], dim=1)  # [B, C]
    slot = _slots(items)  # [B, C], equal for equal items of a row
    found = log_prob.gather(1, items)  # [B, C]
    prob, is_open = found.exp(), found > -math.inf  # [B, C], is_open: may rank at all
    first = torch.zeros_like(prob).scatter_(1, slot, prob)  # [B, C], by slot; others stay 0
    in_use = torch.zeros_like(is_open).scatter_(1, slot, is_open)  # [B, C], by slot
    target_slot = slot[:, -batch.targets.shape[1] :]  # [B, K]
    target_open = is_open[:, -batch.targets.shape[1] :]  # [B, K]
    ranks = []
    for choice in choices:
        weights = _weights(batch.similarity, choice)  # [B, K]
        alpha = choice.alpha * (weights.sum(1, keepdim=True) > 0)  # [B, 1]
        mass = torch.zeros_like(first).scatter_add_(1, target_slot, weights * target_open)  # [B, C]
        mixed = (1 - alpha) * first + alpha * mass  # [B, C]
        own = mixed.gather(1, slot[:, :1])  # [B, 1]
        n_tied = ((mixed == own) & in_use).sum(1) - 1  # [B], the label itself left out
        ranks.append(1 + (mixed > own).sum(1) + n_tied // 2)  # [B]
    return torch.stack(ranks)


def hide(scores: Tensor, batch: HeldOut) -> Tensor:
    """Return the scores [B, N] with the hidden items at -inf, but never the label."""
    if batch.hidden is None:
        return scores
    label = scores.gather(1, batch.labels[:, None])  # [B, 1]
    return scores.scatter(1, batch.hidden, -math.inf).scatter(1, batch.labels[:, None], label)


@torch.no_grad()
def score_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the rank (from 1) of each label [B] by its scores [B, N].

    Items that score the same share the middle of their places, as in the evaluation.
    """
    own = scores.gather(1, labels[:, None])  # [B, 1]
    n_tied = (scores == own).sum(1) - 1  # [B], the label itself left out
    return 1 + (scores > own).sum(1) + n_tied // 2  # [B]


def _weights(similarity: Tensor, choice: Choice) -> Tensor:
    """Return the weights [B, K] of a choice: a softmax over its first neighbours, 0 elsewhere."""
    places = torch.arange(similarity.shape[1], device=similarity.device)  # [K]
    used = similarity.masked_fill(places >= choice.top_k, -math.inf) / choice.temperature  # [B, K]
    return used.softmax(1).nan_to_num(0.0)  # a row without neighbours is NaN before


def _slots(items: Tensor) -> Tensor:
    """Number the distinct items of each row: [B, C] -> [B, C] of 0..C-1, equal for equal items."""
    ordered, order = items.sort(dim=1)
    is_new = torch.ones_like(ordered)
    is_new[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).long()
    return torch.empty_like(items).scatter_(1, order, is_new.cumsum(1) - 1)
