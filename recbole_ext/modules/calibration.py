"""Choosing how to mix on held-out rows: alpha, how many neighbours, temperature, smoothing.

For mixes of distributions the target's rank under every choice needs only the recommender's best
items, the neighbours' targets and the target itself, so a grid of a hundred choices costs little
more than one scoring.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_ext.modules.mixing import MixSettings, log_linear_bonus
from recbole_ext.modules.retriever import log_weights

PARTS = 10
"""Parts of the held-out rows, each judged by what is chosen on the others."""
CUTOFF = 20
"""Ranks up to this one are looked at."""


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
    alphas: Iterable[float],
    top_ks: Iterable[int],
    temperatures: Iterable[float],
    smoothings: Iterable[float] = (1.0,),
) -> list[MixSettings]:
    """Return all combinations, small alphas first; alpha 0 stands for one choice, not many."""
    ks, heats, floors = sorted(set(top_ks)), sorted(set(temperatures)), sorted(set(smoothings))
    shares = sorted(set(alphas))
    found = [MixSettings(*one) for one in itertools.product(shares, ks, heats, floors) if one[0]]
    return [MixSettings(0.0, ks[-1], heats[-1], floors[-1]), *found] if 0 in shares else found


def best_choice(choices: Sequence[MixSettings], ranks: Tensor) -> int:
    """Return the place of the best choice by the labels' ranks.

    To leave the neighbours out, where it is one of the choices, is taken unless they help by more
    than one standard error, on rows that what is best was not chosen on (in ten parts): the
    one-standard-error rule of Breiman et al., Classification and Regression Trees, 1984, section
    3.4.3. On the rows that it was chosen on the best of many always looks better. Of the others,
    those are as good at the top of the list whose NDCG@10 is within two standard errors (of the
    difference, paired by row) of the largest; of these it is the one with the largest recall@20,
    and the first of equals: further down some of them lose what the recommender had found.

    Args:
        choices: Those with alpha 0, if any, first.
        ranks: Of the labels under each choice, [choices, rows].
    """
    gain = ndcg(ranks, 10).double()  # [choices, rows]
    if choices[0].alpha == 0:
        gained = _gain_elsewhere(gain)  # [rows]
        if not gained.mean() > _standard_error(gained):
            return 0
    difference = gain[gain.mean(1).argmax()] - gain  # [choices, rows]
    is_close = difference.mean(1) <= 2 * _standard_error(difference)  # [choices]
    is_close[0] &= choices[0].alpha > 0
    return int(recall(ranks, 20).masked_fill(~is_close, -1).argmax())


def _gain_elsewhere(gain: Tensor) -> Tensor:
    """Return what each row gains over choice 0 by what is best on the rows of the other parts.

    Args:
        gain: [choices, rows]; each part is every tenth row.

    Returns:
        [rows].
    """
    total = gain.sum(1)  # [choices]
    found = torch.empty_like(gain[0])  # [rows]
    for part in range(PARTS):
        mine = gain[:, part::PARTS]  # [choices, rows / PARTS]
        found[part::PARTS] = mine[(total - mine.sum(1)).argmax()] - mine[0]
    return found


def _standard_error(values: Tensor) -> Tensor:
    """Return the standard error of the mean over the last axis."""
    return values.std(-1, correction=0) / values.shape[-1] ** 0.5


def recall(rank: Tensor, cutoff: int) -> Tensor:
    """Return recall@cutoff [choices] of a single relevant item with ranks [choices, rows]."""
    return (rank <= cutoff).double().mean(1)


def ndcg(rank: Tensor, cutoff: int) -> Tensor:
    """Return NDCG@cutoff of a single relevant item whose rank (from 1) is given, same shape."""
    return torch.where(rank <= cutoff, 1 / torch.log2(rank + 1.0), torch.zeros(()))


@torch.no_grad()
def mixture_ranks(
    batch: HeldOut, choices: Sequence[MixSettings], mix: str, cutoff: int = CUTOFF
) -> Tensor:
    """Return the label's rank under a mix of distributions for every choice.

    Only items that can share or take the place of a label within the cutoff are looked at: the
    neighbours' targets, and the ``2 cutoff + K`` best of the recommender, among which ``2 cutoff``
    are no neighbours' targets: were all of them as good as the label, the middle of their places
    would lie beyond the cutoff. A rank up to it is exact; a worse one is only known to be worse.

    Args:
        batch: Held-out rows.
        choices: Ways to mix; no ``top_k`` exceeds K.
        mix: ``probability`` or ``log_linear``.
        cutoff: Of the metrics that the ranks are for.

    Returns:
        [choices, B].
    """
    # the log-linear mix needs no normaliser, and so adds what the scores add, to the bit
    logits = batch.logits if mix == "log_linear" else batch.logits.log_softmax(1)  # [B, N]
    log_prob = hide(logits, batch)  # [B, N]
    n_best = min(2 * cutoff + 1 + batch.targets.shape[1], log_prob.shape[1])
    best = log_prob.topk(n_best, dim=1).indices  # [B, M]
    items = torch.cat([batch.labels[:, None], best, batch.targets], dim=1)  # [B, C]
    slot = _slots(items)  # [B, C], equal for equal items of a row
    found = log_prob.gather(1, items)  # [B, C]
    is_open = found > -math.inf  # [B, C], may rank at all
    first = torch.full_like(found, -math.inf).scatter_(1, slot, found)  # [B, C], by slot
    in_use = first > -math.inf  # [B, C], by slot
    prob = first.exp() if mix == "probability" else first  # [B, C], by slot; 0 where no item is
    target_slot = slot[:, -batch.targets.shape[1] :]  # [B, K]
    target_open = is_open[:, -batch.targets.shape[1] :]  # [B, K]
    masses: dict[tuple, tuple[Tensor, Tensor]] = {}  # of choices that weigh alike
    ranks = []
    for choice in choices:
        key = (choice.top_k, choice.temperature)
        if key not in masses:
            weights = _weights(batch.similarity, choice)  # [B, K]
            mass = torch.zeros_like(first).scatter_add_(1, target_slot, weights * target_open)
            masses[key] = mass, (weights.sum(1, keepdim=True) > 0).float()  # [B, C], [B, 1]
        mass, has_any = masses[key]
        if mix == "log_linear":
            mixed = first + log_linear_bonus(mass, choice.alpha, choice.smoothing)  # [B, C]
        else:
            alpha = choice.alpha * has_any  # [B, 1]
            mixed = (1 - alpha) * prob + alpha * mass  # [B, C]
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


def _weights(similarity: Tensor, choice: MixSettings) -> Tensor:
    """Return the weights [B, K] of a choice: a softmax over its first neighbours, 0 elsewhere."""
    places = torch.arange(similarity.shape[1], device=similarity.device)  # [K]
    valid = (places < choice.top_k) & (similarity > -math.inf)  # [B, K]
    return log_weights(similarity, valid, choice.temperature).exp() * valid  # [B, K]


def _slots(items: Tensor) -> Tensor:
    """Number the distinct items of each row: [B, C] -> [B, C] of 0..C-1, equal for equal items."""
    ordered, order = items.sort(dim=1)
    is_new = torch.ones_like(ordered)
    is_new[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).long()
    return torch.empty_like(items).scatter_(1, order, is_new.cumsum(1) - 1)
