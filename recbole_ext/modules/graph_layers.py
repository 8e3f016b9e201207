"""Layers of a graph network over all nodes: ``sage`` (mean of neighbours), ``gat`` (attention)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ext.modules.attention import check_heads
from recbole_ext.modules.graph_conv import SparseGraph
from recbole_ext.modules.losses import exact


class SageLayers(nn.Module):
    """h = W x + V mean of the neighbours' x, ReLU between layers and none after the last.

    Hamilton et al., GraphSAGE (NeurIPS 2017), algorithm 1 with the mean aggregator over all
    neighbours; W [x; mean] is written as two products.

    Args:
        mean: The mean over neighbours [n, n].
        hidden_size: D.
        n_layers: How many.
    """

    def __init__(self, mean: SparseGraph, hidden_size: int, n_layers: int) -> None:
        super().__init__()
        self.mean = mean
        self.own = _maps(hidden_size, n_layers, bias=True)
        self.neighbours = _maps(hidden_size, n_layers, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map the nodes' vectors [n, D] to others [n, D]."""
        for i, (own, neighbours) in enumerate(zip(self.own, self.neighbours, strict=True)):
            x = own(x) + neighbours(self.mean(x))  # [n, D]
            x = x.relu() if i + 1 < len(self.own) else x
        return x


class GatLayers(nn.Module):
    """Attention over a node's neighbours and itself (Velickovic et al., GAT, ICLR 2018).

    The weights of a head are softmax(LeakyReLU(a . W x_i + b . W x_j)), its result the weighted sum
    of W x_j; heads stand side by side, ELU is between layers and nothing after the last.

    Args:
        rows: The node that an edge ends in [P].
        cols: The one that it comes from [P].
        n_nodes: n.
        hidden_size: D.
        n_layers: How many.
        n_heads: H, which divides D.
    """

    def __init__(
        self,
        rows: Tensor,
        cols: Tensor,
        n_nodes: int,
        hidden_size: int,
        n_layers: int,
        n_heads: int,
    ) -> None:
        super().__init__()
        check_heads(hidden_size, n_heads)
        self.n_heads = n_heads
        itself = torch.arange(n_nodes)  # [n]
        self.register_buffer("rows", torch.cat([rows, itself]), persistent=False)  # [P + n]
        self.register_buffer("cols", torch.cat([cols, itself]), persistent=False)  # [P + n]
        self.maps = _maps(hidden_size, n_layers, bias=False)
        shape = (n_layers, 2, n_heads, hidden_size // n_heads)
        self.attention = nn.Parameter(torch.randn(shape) * (hidden_size // n_heads) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map the nodes' vectors [n, D] to others [n, D]."""
        for i, layer in enumerate(self.maps):
            x = self._attend(layer(x), self.attention[i])  # [n, D]
            x = F.elu(x) if i + 1 < len(self.maps) else x
        return x

    def _attend(self, x: Tensor, attention: Tensor) -> Tensor:
        rows, cols = self.get_buffer("rows"), self.get_buffer("cols")  # [P] each
        heads = exact(x).unflatten(1, (self.n_heads, -1))  # [n, H, D/H], sums in 32 bits
        of_row, of_col = ((heads * part).sum(2) for part in attention)  # [n, H] each
        logits = F.leaky_relu(of_row[rows] + of_col[cols], 0.2)  # [P, H]
        index = rows.unsqueeze(1).expand_as(logits)  # [P, H]
        most = torch.full_like(of_row, -torch.inf).scatter_reduce(0, index, logits.detach(), "amax")
        weights = (logits - most[rows]).exp()  # [P, H], whose largest of a node is 1
        total = torch.zeros_like(of_row).index_add(0, rows, weights)  # [n, H]
        weights = weights / total[rows]  # [P, H]
        found = torch.zeros_like(heads).index_add(0, rows, weights.unsqueeze(2) * heads[cols])
        return found.flatten(1)  # [n, D]


def _maps(hidden_size: int, n_layers: int, bias: bool) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(hidden_size, hidden_size, bias=bias) for _ in range(n_layers))
