"""Which of the items that rank first are positives, without a matrix of all items."""

from __future__ import annotations

import torch
from torch import Tensor


def hits_of(top: Tensor, rows: Tensor, items: Tensor, n_items: int) -> Tensor:
    """Say of each ranked item whether it is a positive of its row, and count the positives.

    Args:
        top: Items that rank first in each row, [B, K].
        rows: Row of each positive, [P].
        items: Item of each positive, [P]; a pair that is given twice is one positive.
        n_items: Number of items, N.

    Returns:
        Hits (0 or 1) in K columns, the number of positives in the last one, [B, K + 1].
    """
    n_rows = len(top)
    rows, items = rows.to(top.device), items.to(top.device)
    if len(rows) == n_rows and torch.equal(rows, torch.arange(n_rows, device=rows.device)):
        hits = top == items[:, None]  # [B, K]
        counts = torch.ones_like(hits[:, :1])  # [B, 1]
    else:
        keys = (rows * n_items + items).unique()  # [P], in order
        wanted = torch.arange(n_rows, device=top.device)[:, None] * n_items + top  # [B, K]
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)  # [B, K]
        hits = keys[place] == wanted  # [B, K]
        counts = (keys // n_items).bincount(minlength=n_rows)[:, None]  # [B, 1]
    return torch.cat([hits.long(), counts.long()], dim=1)  # [B, K + 1]
