"""One ranking teaches another: soft targets over the same candidates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_ext.modules.losses import exact

SAME = 1e-6
"""Share of a row's largest score, or of one, below which its deviation is nothing but rounding."""


def standardise(scores: Tensor) -> Tensor:
    """Return scores of mean 0 and deviation 1 in each row [B, C]: two models' become comparable.

    A row of equal scores, as of items that all lack a content, is zeros, and gets no gradient.
    """
    scores = exact(scores)  # [B, C]
    centred = scores - scores.mean(1, keepdim=True)  # [B, C]
    deviation = scores.std(1, keepdim=True, correction=0)  # [B, 1]
    least = SAME * scores.detach().abs().amax(1, keepdim=True).clamp_min(1.0)  # [B, 1]
    return torch.where(deviation > least, centred / deviation.clamp_min(SAME), 0.0)  # [B, C]


def distillation(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over rows.

    Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, arXiv:1503.02531,
    section 2: T^2 keeps the size of the gradients when T changes.

    Args:
        student: [B, C]; gets the gradient.
        teacher: [B, C]; gets none.
        temperature: T.
    """
    log_p = F.log_softmax(exact(teacher.detach()) / temperature, dim=1)  # [B, C]
    log_q = F.log_softmax(exact(student) / temperature, dim=1)  # [B, C]
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()


def candidate_loss(scores: Tensor) -> Tensor:
    """Return -log softmax of the first candidate, the positive, the mean over rows [B, C]."""
    return -F.log_softmax(exact(scores), dim=1)[:, 0].mean()


def moving_average(average: Tensor | None, value: Tensor, momentum: float) -> Tensor:
    """Return momentum * average + (1 - momentum) * value; the value where there is no average."""
    return value if average is None else torch.lerp(value, average.to(value), momentum)
