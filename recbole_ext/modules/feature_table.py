"""A stored feature as it is: a table of raw vectors, and who has one."""

from __future__ import annotations

from torch import Tensor, nn


class FeatureTable(nn.Module):
    """Vectors by internal id, in the length they are stored in, and a mask of who has one.

    Args:
        values: [N, F] in float32; rows of zeros say nothing, and count as missing.
        is_trained: Whether the vectors are parameters, and begin as these. If not, they are no
            part of a checkpoint.

    Attributes:
        size: F.
        weight: The vectors [N, F].
        present: Which ids have a vector [N].
    """

    weight: Tensor
    present: Tensor

    def __init__(self, values: Tensor, is_trained: bool = False) -> None:
        super().__init__()
        self.size = values.shape[1]
        self.register_buffer("present", values.any(1), persistent=False)
        if is_trained:
            self.weight = nn.Parameter(values)
        else:
            self.register_buffer("weight", values, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors of ids, [n] -> [n, F]; of those who have none, zeros."""
        return self.weight[ids] * self.present[ids].unsqueeze(1)  # [n, F]

    def extra_repr(self) -> str:
        """Say how large the table is, in a log of the model."""
        return f"{len(self.weight)}, {self.size}"
