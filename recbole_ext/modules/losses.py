"""Losses as functions of tensors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_ext.modules.item_softmax import chunked_cross_entropy
from recbole_ext.types import UserError


def item_cross_entropy(
    states: Tensor, item_weight: Tensor, targets: Tensor, memory_mib: float = 64.0
) -> Tensor:
    """Softmax cross-entropy over all items but the padding item 0.

    Args:
        states: [B, D].
        item_weight: Item embeddings [N, D]; row 0 is the padding item and takes no part.
        targets: Item ids [B] in 1..N-1.
        memory_mib: MiB of logits to hold at once; what comes out does not depend on it.

    Returns:
        Mean over the batch, a scalar.
    """
    return chunked_cross_entropy(states, item_weight[1:], targets - 1, memory_mib)


def info_nce(
    view_a: Tensor,
    view_b: Tensor,
    *,
    temperature: float = 1.0,
    sim: str = "dot",
    same: Tensor | None = None,
) -> Tensor:
    """Contrast two views: a row's positive is its counterpart, the other 2B - 2 rows negatives.

    Qiu et al., DuoRec (WSDM 2022, arXiv:2110.05730), equation 12, over z = [view_a; view_b].

    Args:
        view_a: [B, D].
        view_b: [B, D]; row i is the positive of row i of ``view_a``.
        temperature: Divides the similarities.
        sim: ``dot`` or ``cos``.
        same: Group ids [B]; rows of one group are no negatives of each other. ``None`` keeps all
            negatives.

    Returns:
        Mean over the 2B rows, a scalar.

    Raises:
        UserError: ``sim`` is neither of the two.
    """
    if sim not in ("dot", "cos"):
        raise UserError(f"sim: '{sim}' is neither dot nor cos")
    z = torch.cat([view_a, view_b])  # [2B, D]
    if sim == "cos":
        z = F.normalize(z, dim=1)
    n = len(view_a)
    logits = z @ z.T  # [2B, 2B]
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()  # under autocast the product is of low precision; no softmax is
    logits = logits / temperature  # [2B, 2B]
    hidden = torch.eye(
        2 * n, dtype=torch.bool, device=z.device
    )  # [2B, 2B], a row is not its own candidate
    positive = torch.arange(2 * n, device=z.device).roll(n)  # [2B], (i + B) mod 2B
    if same is not None:
        group = torch.cat([same, same])  # [2B]
        hidden = hidden | (group[:, None] == group[None, :])
        hidden[torch.arange(2 * n, device=z.device), positive] = False
    return F.cross_entropy(logits.masked_fill(hidden, -math.inf), positive)
