"""The four things of ``dgl`` that RecBole's KGAT uses, on plain tensors.

No wheel of dgl imports beside a current torch, and KGAT only builds one sparse matrix per relation
with it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from torch import Tensor


class Graph:
    """A directed multigraph.

    Args:
        src: Source node of each edge, [E].
        dst: Target node of each edge, [E].
        num_nodes: Number of nodes; by default the largest id plus one, as in dgl.
    """

    def __init__(self, src: Tensor, dst: Tensor, num_nodes: int | None = None) -> None:
        self.src = torch.as_tensor(src)  # [E]
        self.dst = torch.as_tensor(dst)  # [E]
        largest = torch.cat([self.src, self.dst, self.src.new_tensor([-1])]).max()
        self.number_of_nodes = int(largest) + 1 if num_nodes is None else num_nodes
        self.edata: dict[str, Tensor] = {}

    def filter_edges(self, predicate: Callable[[Any], Tensor]) -> Tensor:
        """Return the ids [E'] of the edges for which ``predicate(edges)``, [E], is true."""
        return predicate(SimpleNamespace(data=self.edata)).nonzero().squeeze(-1)  # [E']

    def adjacency_matrix(self, transpose: bool = False, scipy_fmt: str = "coo") -> Any:
        """Return the scipy matrix [nodes, nodes] that counts the edges from row to column."""
        ends = (self.dst, self.src) if transpose else (self.src, self.dst)
        row, col = (end.cpu().numpy() for end in ends)
        shape = (self.number_of_nodes, self.number_of_nodes)
        ones = np.ones(len(row), dtype=np.int64)  # as in dgl; KGAT turns them into floats itself
        return coo_matrix((ones, (row, col)), shape).asformat(scipy_fmt)


def graph(edges: tuple[Tensor, Tensor], num_nodes: int | None = None) -> Graph:
    """Return the graph of ``(sources [E], targets [E])``."""
    return Graph(edges[0], edges[1], num_nodes)


def edge_subgraph(whole: Graph, edges: Tensor, preserve_nodes: bool = False) -> Graph:
    """Return the graph of the given edge ids, with all nodes kept.

    Raises:
        NotImplementedError: ``preserve_nodes=False``, which RecBole never asks for.
    """
    if not preserve_nodes:
        raise NotImplementedError("this stand-in for dgl keeps all nodes; install dgl for the rest")
    part = Graph(whole.src[edges], whole.dst[edges], whole.number_of_nodes)
    part.edata = {name: value[edges] for name, value in whole.edata.items()}
    return part
