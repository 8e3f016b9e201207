"""Graphs of users and items: sparse matrices by rows, and what is propagated over them.

A product with a matrix of ``torch.sparse`` in CSR form takes less than half of that with COO on a
CPU. Its gradient is a product with the transpose, which is the matrix itself where users and items
are neighbours of each other, and is kept beside it elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Csr(NamedTuple):
    """A sparse matrix [n, n] by rows.

    Attributes:
        crow: Where each row begins, and the last one ends [n + 1].
        col: Columns [E].
        values: [E].
    """

    crow: Tensor
    col: Tensor
    values: Tensor

    def matrix(self) -> Tensor:
        """Return it as torch has it, [n, n], sharing this memory."""
        n = len(self.crow) - 1
        return torch.sparse_csr_tensor(
            self.crow, self.col, self.values, (n, n), check_invariants=False
        )

    def rows(self) -> Tensor:
        """Return the row of each value [E]."""
        n = len(self.crow) - 1
        return torch.arange(n, device=self.crow.device).repeat_interleave(self.crow.diff())


def csr_of(rows: Tensor, cols: Tensor, values: Tensor, n: int) -> Csr:
    """Return the matrix [n, n] with the values [E] in these cells; those of one cell are added."""
    cells = torch.sparse_coo_tensor(
        torch.stack([rows, cols]), values, (n, n), check_invariants=False
    ).coalesce()
    rows, cols = cells.indices()  # [E] each, row by row
    found = Csr(F.pad(torch.bincount(rows, minlength=n).cumsum(0), (1, 0)), cols, cells.values())
    with warnings.catch_warnings():  # "in beta state", said once a process: here, and in no log
        warnings.simplefilter("ignore")
        found.matrix()
    return found


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Csr, transposed: Csr) -> Tensor:
        ctx.transposed = transposed
        return matrix.matrix() @ x  # [n, D]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return ctx.transposed.matrix() @ grad, None, None


def multiply(x: Tensor, matrix: Csr, transposed: Csr | None = None) -> Tensor:
    """Return A x [n, D], with a gradient for x; there is no such product in 16 bits.

    Args:
        x: [n, D].
        matrix: A [n, n].
        transposed: A^T; ``None`` where A is symmetric.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(matrix.values.dtype)
        return _Product.apply(x, matrix, matrix if transposed is None else transposed)


class SparseGraph(nn.Module):
    """A matrix [n, n] that stays as it is: it moves with a model and is in no checkpoint.

    Args:
        matrix: A.
        transposed: A^T; ``None`` where A is symmetric.
    """

    def __init__(self, matrix: Csr, transposed: Csr | None = None) -> None:
        super().__init__()
        self.is_symmetric = transposed is None
        parts = {"": matrix} if transposed is None else {"": matrix, "t_": transposed}
        for prefix, part in parts.items():
            for name, value in part._asdict().items():
                self.register_buffer(f"{prefix}{name}", value, persistent=False)

    @property
    def csr(self) -> Csr:
        """The matrix."""
        return self._part("")

    def forward(self, x: Tensor) -> Tensor:
        """Return A x, [n, D] -> [n, D]."""
        return multiply(x, self.csr, None if self.is_symmetric else self._part("t_"))

    def _part(self, prefix: str) -> Csr:
        return Csr(*(self.get_buffer(f"{prefix}{name}") for name in Csr._fields))


def bipartite(
    users: Tensor, items: Tensor, n_users: int, n_items: int, is_normalised: bool = True
) -> Csr:
    """Return the graph of who took what: users and, after them, items [U + N, U + N].

    Args:
        users: User of each interaction [R]; a pair counts once, however often it is there.
        items: Its item [R].
        n_users: U.
        n_items: N.
        is_normalised: Entries 1 / sqrt(d_u d_i), d the number of neighbours; else 1.
    """
    pairs = (users * n_items + items).unique()  # [E]
    users, items = pairs // n_items, pairs % n_items  # [E] each
    values = torch.ones(len(pairs), device=pairs.device)  # [E]
    if is_normalised:
        degree_u, degree_i = torch.bincount(users)[users], torch.bincount(items)[items]  # [E] each
        values = (degree_u * degree_i).double().rsqrt().float()  # [E]
    nodes = items + n_users  # [E]
    rows, cols = torch.cat([users, nodes]), torch.cat([nodes, users])  # [2E] each
    return csr_of(rows, cols, values.repeat(2), n_users + n_items)


def mean_of_layers(x: Tensor, n_layers: int, propagate: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the mean of x, A x, ..., A^L x (He et al., LightGCN, SIGIR 2020, equations 7 and 8).

    Args:
        x: [n, D].
        n_layers: L.
        propagate: x -> A x.
    """
    total = x
    for _ in range(n_layers):
        x = propagate(x)  # [n, D]
        total = total + x
    return total / (n_layers + 1)


def sample(weights: Tensor, n: int) -> Tensor:
    """Return n places [n] drawn without replacement, each time in proportion to the weights [E].

    As ``torch.multinomial``, which draws so too, but takes at most 2^24 weights: a race in which
    the place e needs an exponential time of rate w_e, and the first n count (Efraimidis and
    Spirakis, 2006).
    """
    speed = weights / torch.empty_like(weights).exponential_()  # [E]
    return speed.topk(n, sorted=False).indices


def keep_edges(graph: Csr, n_users: int, share: float) -> Csr:
    """Return a :func:`bipartite` graph of a share of the edges, normalised by its own degrees.

    Edges are drawn in proportion to 1 / sqrt(d_u d_i): popular ones go first (Zhou and Shen,
    FREEDOM, MM 2023).

    Args:
        graph: The normalised graph of all edges.
        n_users: U.
        share: Of the edges that stay; at least one does.
    """
    n_edges = int(graph.crow[n_users])
    kept = sample(graph.values[:n_edges], max(1, round(share * n_edges)))
    users, items = graph.rows()[:n_edges][kept], graph.col[:n_edges][kept] - n_users
    found = bipartite(users, items, n_users, len(graph.crow) - 1 - n_users)
    return found._replace(values=found.values.to(graph.values.dtype))
