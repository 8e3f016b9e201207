"""The Cloze task: which items of a history are hidden, and by what (Devlin et al., NAACL 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_ext.modules.histories import appended


def draw_hidden(lengths: Tensor, width: int, prob: float) -> Tensor:
    """Draw the positions to predict: each with a probability, and one in any case.

    Args:
        lengths: Lengths of the histories [B], each in 1..L.
        width: Positions, L.
        prob: Probability of each.

    Returns:
        [B, L], true at least once in a row and never at a padded position.
    """
    noise = torch.rand(len(lengths), width, device=lengths.device)  # [B, L]
    padded = torch.arange(width, device=lengths.device) >= lengths[:, None]  # [B, L]
    noise = noise.masked_fill(padded, 2.0)  # above all others
    first = F.one_hot(noise.argmin(1), width).bool()  # [B, L]
    return (noise < prob) | first


def hide(
    item_seq: Tensor,
    hidden: Tensor,
    mask_item: int,
    random_prob: float = 0.0,
    keep_prob: float = 0.0,
) -> Tensor:
    """Replace the hidden items by the mask; some by a random item instead, and some not at all.

    Args:
        item_seq: [B, L].
        hidden: [B, L].
        mask_item: Id that stands for a hidden item; those below it but 0 are items.
        random_prob: Share that a random item replaces.
        keep_prob: Share that stays as it is.

    Returns:
        [B, L].
    """
    masked = torch.full_like(item_seq, mask_item)  # [B, L]
    if random_prob or keep_prob:
        kind = torch.rand(item_seq.shape, device=item_seq.device)  # [B, L]
        others = torch.randint_like(item_seq, 1, mask_item)  # [B, L]
        masked = torch.where(kind < random_prob, others, masked)
        masked = torch.where(kind >= 1 - keep_prob, item_seq, masked)
    return torch.where(hidden, masked, item_seq)


def appended_within(item_seq: Tensor, item_seq_len: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Append an item to each history; only a full one loses its oldest for it.

    Args:
        item_seq: [B, L], padded on the right.
        item_seq_len: [B].
        items: [B].

    Returns:
        The histories [B, L] and their lengths [B].
    """
    longer, width = appended(item_seq, item_seq_len, items), item_seq.size(1)  # [B, L + 1], L
    is_full = (item_seq_len == width)[:, None]  # [B, 1]
    return torch.where(is_full, longer[:, 1:], longer[:, :-1]), (item_seq_len + 1).clamp(max=width)
