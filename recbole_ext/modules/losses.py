"""Losses as functions of tensors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_ext.modules.item_softmax import chunked_cross_entropy
from recbole_ext.types import UserError


def exact(x: Tensor) -> Tensor:
    """Return what autocast made in 16 bits in 32: products are of low precision, no loss is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def item_cross_entropy(
    states: Tensor,
    item_weight: Tensor,
    targets: Tensor,
    memory_mib: float = 64.0,
    item_bias: Tensor | None = None,
) -> Tensor:
    """Softmax cross-entropy over all items but the padding item 0.

    Args:
        states: [B, D].
        item_weight: Item embeddings [N, D]; row 0 is the padding item and takes no part.
        targets: Item ids [B] in 1..N-1.
        memory_mib: MiB of logits to hold at once; what comes out does not depend on it.
        item_bias: Added to the logits [N].

    Returns:
        Mean over the batch, a scalar.
    """
    if item_bias is not None:  # one more dimension, in which all states are 1
        states = torch.cat([states, states.new_ones(len(states), 1)], 1)  # [B, D + 1]
        item_weight = torch.cat([item_weight, item_bias[:, None]], 1)  # [N, D + 1]
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
    logits = exact(z @ z.T) / temperature  # [2B, 2B]
    hidden = torch.eye(
        2 * n, dtype=torch.bool, device=z.device
    )  # [2B, 2B], a row is not its own candidate
    positive = torch.arange(2 * n, device=z.device).roll(n)  # [2B], (i + B) mod 2B
    if same is not None:
        group = torch.cat([same, same])  # [2B]
        hidden = hidden | (group[:, None] == group[None, :])
        hidden[torch.arange(2 * n, device=z.device), positive] = False
    return F.cross_entropy(logits.masked_fill(hidden, -math.inf), positive)


def bpr(positive: Tensor, negative: Tensor, mask: Tensor | None = None) -> Tensor:
    """Pairwise loss -log sigmoid(s+ - s-) (Rendle et al., BPR, UAI 2009).

    Args:
        positive: Scores [B].
        negative: Scores [B, K] of items that were not taken.
        mask: Pairs that count [B, K]; ``None``: all.

    Returns:
        Mean over the pairs that count, a scalar; 0 where none does.
    """
    loss = F.softplus(exact(negative) - exact(positive)[:, None])  # [B, K]
    return loss.mean() if mask is None else (loss * mask).sum() / mask.sum().clamp_min(1)


def embedding_norm(*embeddings: Tensor) -> Tensor:
    """Return (sum_j ||e_j||_F) / rows of the last: what multimodal recommenders regularise by.

    It is RecBole's ``EmbLoss`` with ``require_pow: False``: norms, not their squares.

    Args:
        embeddings: [n_j, D_j] each.

    Returns:
        A scalar.
    """
    total = torch.stack([exact(e).norm() for e in embeddings]).sum()
    return total / len(embeddings[-1])


def matching_bce(positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross-entropy of what matches and what does not, half of the weight on each.

    Of raw cosines it never falls below log(1 + 1/e) = .313: logits need a learned scale and bias.

    Args:
        positive: Logits [B].
        negative: Logits [B, K].

    Returns:
        A scalar.
    """
    return (F.softplus(-exact(positive)).mean() + F.softplus(exact(negative)).mean()) / 2


def match_info_nce(queries: Tensor, keys: Tensor, *, temperature: float, ids: Tensor) -> Tensor:
    """InfoNCE of queries with the keys of a batch, cosines; the positive is in the denominator.

    With several vectors for a query its similarity to a key is the largest of theirs (UR4Rec,
    COLING 2025, the contrastive loss over proxy tokens; Li et al., BLIP-2, ICML 2023, section 3.1).

    Args:
        queries: [B, D], or [B, K, D].
        keys: [B, D]; row i is the positive of row i.
        temperature: Divides the cosines.
        ids: What each key is [B]; keys that are the same thing are no negatives of each other.

    Returns:
        Mean over the batch, a scalar.
    """
    similarity = F.normalize(queries, dim=-1) @ F.normalize(keys, dim=-1).T  # [B, B] or [B, K, B]
    if similarity.dim() == 3:
        similarity = similarity.amax(1)  # [B, B]
    same = ids[:, None] == ids[None, :]  # [B, B]
    same = same & ~torch.eye(len(ids), dtype=torch.bool, device=ids.device)  # [B, B]
    own = torch.arange(len(ids), device=ids.device)  # [B]
    logits = exact(similarity) / temperature  # [B, B]
    return F.cross_entropy(logits.masked_fill(same, -math.inf), own)


def consistency(view: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Draw one modality to another, which stands still: 1 - cos(view, stop_gradient(target)).

    Not their mean squared error: of unit vectors that is 2 (1 - cos) / D, next to nothing.

    Args:
        view: [B, D].
        target: [B, D].
        mask: Rows that have both [B]; ``None``: all.

    Returns:
        Mean over the rows that count, a scalar; 0 where none does.
    """
    distance = 1 - F.cosine_similarity(exact(view), exact(target.detach()), dim=-1)  # [B]
    return distance.mean() if mask is None else (distance * mask).sum() / mask.sum().clamp_min(1)


def coding_rate(vectors: Tensor, epsilon: float = 0.5) -> Tensor:
    """Return how much room vectors take: 1/2 logdet(I + D / (n epsilon^2) X^T X).

    Yu et al., MCR2 (NeurIPS 2020, arXiv:2006.08558), equation 1, of rows of unit length. It is
    reckoned by Cholesky of whichever of X X^T [n, n] and X^T X [D, D] is smaller: both have the
    same determinant.

    Args:
        vectors: [..., n, D]; brought to unit length.
        epsilon: Distortion: what is nearer than that counts as the same.

    Returns:
        [...], in nats.
    """
    n, size = vectors.shape[-2:]
    with torch.autocast(vectors.device.type, enabled=False):  # there is no Cholesky in 16 bits
        x = F.normalize(vectors.float(), dim=-1)  # [..., n, D]
        gram = x @ x.mT if n <= size else x.mT @ x  # [..., min, min]
        eye = torch.eye(min(n, size), device=x.device)
        lower = torch.linalg.cholesky(eye + size / (n * epsilon**2) * gram)  # [..., min, min]
        return lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # half of the log-determinant


def diversity(vectors: Tensor, epsilon: float = 0.5) -> Tensor:
    """Spread the vectors that belong to one user, a list of items or proxies: less coding rate.

    Args:
        vectors: [B, n, D].
        epsilon: See :func:`coding_rate`.

    Returns:
        One less the share of the largest rate that n unit vectors can have: a scalar in [0, 1), 0
        for orthogonal ones.
    """
    n, size = vectors.shape[-2:]
    rank = min(n, size)
    # orthogonal vectors have the largest rate; where n > D, a tight frame
    most = rank / 2 * math.log1p(size * max(1.0, n / size) / (n * epsilon**2))
    return 1 - (coding_rate(vectors, epsilon) / most).mean()
