"""Losses of clicks: within an impression, and of single rows of which few are clicked."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_ext.modules.losses import exact


def impression_softmax(logits: Tensor) -> Tensor:
    """Cross-entropy of the click among non-clicks of its impression (Wu et al., NRMS, equation 7).

    Args:
        logits: [B, 1 + K]; the click stands first.

    Returns:
        Mean over the clicks, a scalar.
    """
    return -exact(logits).log_softmax(1)[:, 0].mean()


def hardest(logits: Tensor, n: int, share: float) -> Tensor:
    """Return the click and n of K non-clicks: those with the highest logits, then others.

    The others are the first that are left, so of non-clicks in an order by chance they are drawn by
    chance.

    Args:
        logits: [B, 1 + K]; the click stands first.
        n: Non-clicks to keep, at most K.
        share: Of the n that are the highest ones, in [0, 1].

    Returns:
        [B, 1 + n], with gradients for what is kept.
    """
    others = logits[:, 1:]  # [B, K]
    n_hard = round(share * n)
    hard = others.detach().topk(n_hard, 1).indices  # [B, h]
    place = torch.arange(others.shape[1], device=logits.device).expand_as(others)  # [B, K]
    # the hard ones before all, the others as they stand
    rank = place.scatter(1, hard, -1)  # [B, K]
    kept = rank.argsort(dim=1, stable=True)[:, :n]  # [B, n]
    return torch.cat([logits[:, :1], others.gather(1, kept)], 1)


def click_bce(logits: Tensor, labels: Tensor, pos_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy, a click counting ``pos_weight`` times; of logits that stay calibrated.

    With that weight the best logit is logit(p) + log(pos_weight). The loss is therefore taken of
    ``logits + log(pos_weight)``, and sigmoid(logits) remains the probability of a click.

    Args:
        logits: [B].
        labels: 1 for clicks and 0 else [B].
        pos_weight: Weight of a click.

    Returns:
        Mean over the rows, a scalar.
    """
    weight = torch.tensor(pos_weight, device=logits.device)
    return F.binary_cross_entropy_with_logits(
        exact(logits) + weight.log(), labels.float(), pos_weight=weight
    )


def sampled_bce(logits: Tensor, labels: Tensor, prior: float) -> Tensor:
    """Binary cross-entropy of rows half of which are clicks, where ``prior`` of all are.

    Sampling shifts the best logit by -logit(prior), a constant (King and Zeng, 2001): it is added
    here, and sigmoid(logits) remains the probability of a click among all rows.

    Args:
        logits: [B].
        labels: 1 for clicks and 0 else [B].
        prior: Share of clicks among all rows, in (0, 1).

    Returns:
        Mean over the rows, a scalar.
    """
    shift = torch.logit(torch.tensor(prior, device=logits.device))
    return F.binary_cross_entropy_with_logits(exact(logits) - shift, labels.float())


def focal(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Cross-entropy in which a row counts (1 - p of its label)^gamma (Lin et al., ICCV 2017).

    Args:
        logits: [B].
        labels: 1 for clicks and 0 else [B].
        gamma: 0 is the plain cross-entropy.

    Returns:
        Mean over the rows, a scalar.
    """
    labels = labels.float()
    loss = F.binary_cross_entropy_with_logits(exact(logits), labels, reduction="none")  # [B]
    return ((1 - torch.exp(-loss)) ** gamma * loss).mean()
