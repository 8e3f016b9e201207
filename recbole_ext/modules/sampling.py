"""Random choices for training, all from torch's global generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SameTargetSampler(nn.Module):
    """Draws, for a row, another row with the same target, uniformly; itself when there is none.

    The rows of each target are kept in CSR form: one stable sort instead of the pairwise comparison
    of DuoRec's code. The tables follow the module's device and stay out of its ``state_dict``,
    since the data determine them.

    Args:
        targets: Target item of every row [R], row ids being positions.
    """

    order: Tensor
    begin: Tensor
    count: Tensor
    rank: Tensor

    def __init__(self, targets: Tensor) -> None:
        super().__init__()
        order = targets.argsort(stable=True)  # [R], rows grouped by target
        counts = torch.bincount(targets)  # [max target + 1]
        begins = counts.cumsum(0) - counts  # [max target + 1], where each group begins in order
        rank = torch.empty_like(order)
        rank[order] = (
            torch.arange(len(order)) - begins[targets[order]]
        )  # [R], place within its group
        for name, table in (
            ("order", order),
            ("begin", begins[targets]),
            ("count", counts[targets]),
            ("rank", rank),
        ):
            self.register_buffer(name, table.to(torch.int32), persistent=False)  # [R] each

    def forward(self, row_id: Tensor) -> Tensor:
        """Return one row id [B] for each row id [B]."""
        others = self.count[row_id] - 1  # [B]
        drawn = (torch.rand(row_id.shape, dtype=torch.float64, device=row_id.device) * others).to(
            torch.int32
        )  # [B], below others
        drawn = drawn + (drawn >= self.rank[row_id])  # [B], the row itself is skipped
        drawn = drawn.minimum(others)  # [B], alone: others is 0 and so is the draw
        return self.order[self.begin[row_id] + drawn].to(row_id.dtype)  # [B]


def other_items(targets: Tensor, n: int, n_items: int) -> Tensor:
    """Draw items uniformly that are not the target, nor the padding item 0.

    Args:
        targets: Item ids [B] in 1..N-1.
        n: Items for each of them, K.
        n_items: N, the padding item included; at least 3.

    Returns:
        Item ids [B, K], drawn with replacement.
    """
    drawn = torch.randint(1, n_items - 1, (len(targets), n), device=targets.device)  # [B, K]
    return drawn + (drawn >= targets[:, None])  # [B, K], the target is skipped
