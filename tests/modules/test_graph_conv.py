"""Graphs against dense matrices: entries, products, gradients; what a sample of edges is."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from recbole_ext.modules import graph_conv
from recbole_ext.modules.graph_conv import (
    SparseGraph,
    bipartite,
    csr_of,
    keep_edges,
    mean_of_layers,
    multiply,
    sample,
)

USERS = torch.tensor([1, 3, 1, 2, 1, 3, 1])  # user 0 and item 0 are padding; user 1 took 2 twice
ITEMS = torch.tensor([2, 1, 3, 2, 2, 4, 4])
N_USERS, N_ITEMS = 5, 6  # user 4 and item 5 have no neighbours


def dense_graph() -> np.ndarray:
    graph = np.zeros((N_USERS + N_ITEMS,) * 2)
    for user, item in zip(USERS.tolist(), ITEMS.tolist(), strict=True):
        graph[user, N_USERS + item] = graph[N_USERS + item, user] = 1
    return graph


@pytest.mark.parametrize("is_normalised", [True, False])
def test_a_graph_is_the_dense_one(is_normalised):
    expected = dense_graph()
    if is_normalised:
        for row, col in zip(*expected.nonzero(), strict=True):
            n_row, n_col = (dense_graph()[node].sum() for node in (row, col))
            expected[row, col] = 1 / np.sqrt(n_row * n_col)
    found = bipartite(USERS, ITEMS, N_USERS, N_ITEMS, is_normalised)
    np.testing.assert_allclose(found.matrix().to_dense(), expected, rtol=1e-6)
    assert len(found.col) == 12  # of six pairs, each once and both ways
    assert found.rows().tolist() == dense_graph().nonzero()[0].tolist()


def test_products_and_gradients_are_those_of_dense_matrices():
    """The matrix is not symmetric, so that its transpose is not itself."""
    rows, cols = torch.tensor([0, 0, 2, 3, 3]), torch.tensor([1, 3, 0, 3, 1])
    values = torch.randn(5, dtype=torch.float64)
    full = torch.zeros(4, 4, dtype=torch.float64).index_put((rows, cols), values)
    graph = SparseGraph(csr_of(rows, cols, values, 4), csr_of(cols, rows, values, 4))
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(graph(x), full @ x)
    (mine,) = torch.autograd.grad((graph(graph(x)) * weights).sum(), x)
    (theirs,) = torch.autograd.grad((full @ (full @ x) * weights).sum(), x)
    torch.testing.assert_close(mine, theirs)
    assert torch.autograd.gradcheck(graph, x)


def test_cells_that_are_there_twice_are_added():
    cells = torch.tensor([1, 1, 0]), torch.tensor([0, 0, 1])
    found = csr_of(*cells, torch.tensor([0.25, 0.5, 1.0]), 2)
    assert found.matrix().to_dense().tolist() == [[0, 1], [0.75, 0]]


def test_a_graph_goes_with_its_module_and_into_no_checkpoint():
    graph = SparseGraph(bipartite(USERS, ITEMS, N_USERS, N_ITEMS))
    x = torch.randn(N_USERS + N_ITEMS, 2)
    assert graph.state_dict() == {} and not list(graph.parameters())
    assert torch.equal(copy.deepcopy(graph)(x), graph(x))
    assert graph.to("meta").csr.values.device.type == "meta"


def test_sixteen_bits_are_multiplied_in_32():
    graph = SparseGraph(bipartite(USERS, ITEMS, N_USERS, N_ITEMS))
    x = torch.randn(N_USERS + N_ITEMS, 2, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = graph(x.bfloat16())
    assert found.dtype == torch.float32
    found.sum().backward()
    assert x.grad.isfinite().all() and x.grad.any()


def test_the_mean_of_layers_begins_with_what_goes_in():
    x, a = torch.randn(3, 2), torch.randn(3, 3)
    expected = (x + a @ x + a @ a @ x) / 3
    torch.testing.assert_close(mean_of_layers(x, 2, lambda y: a @ y), expected)
    assert torch.equal(mean_of_layers(x, 0, lambda y: a @ y), x)


def test_a_sample_follows_its_weights_without_replacement():
    torch.manual_seed(0)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    first = torch.stack([sample(weights, 1)[0] for _ in range(4000)]).bincount(minlength=4)
    np.testing.assert_allclose(first / 4000, weights, atol=0.03)
    assert all(sorted(sample(weights, 4).tolist()) == [0, 1, 2, 3] for _ in range(5))
    # two of three: P(both 1 and 2) = w1 w2 / (1 - w1) + w2 w1 / (1 - w2)
    w = torch.tensor([0.5, 0.25, 0.25])
    pairs = [0 not in sample(w, 2).tolist() for _ in range(4000)]
    assert np.mean(pairs) == pytest.approx(2 * 0.25 * 0.25 / 0.75, abs=0.03)


def test_popular_edges_go_first(monkeypatch):
    """Of weights 1 / sqrt(d_u d_i), and both directions of an edge go or stay together."""
    asked = []
    choose = torch.tensor([0, 3, 5])
    monkeypatch.setattr(graph_conv, "sample", lambda w, n: asked.append((w, n)) or choose)
    whole = bipartite(USERS, ITEMS, N_USERS, N_ITEMS)
    found = keep_edges(whole, N_USERS, 0.5).matrix().to_dense().numpy()
    ((weights, n),) = asked
    edges = np.argwhere(np.triu(dense_graph()))  # user by user
    degree = dense_graph().sum(1)
    np.testing.assert_allclose(weights, (degree[edges] ** -0.5).prod(1), rtol=1e-6)
    assert n == 3
    kept = np.zeros_like(found)
    for row, col in edges[choose]:
        kept[row, col] = kept[col, row] = 1
    scale = np.maximum(kept.sum(1), 1) ** -0.5
    np.testing.assert_allclose(found, scale[:, None] * kept * scale, rtol=1e-6)


def test_one_edge_stays():
    whole = bipartite(USERS, ITEMS, N_USERS, N_ITEMS)
    assert len(keep_edges(whole, N_USERS, 0.01).col) == 2


def test_products_over_a_part_of_the_edges_have_their_gradient():
    part = keep_edges(bipartite(USERS, ITEMS, N_USERS, N_ITEMS), N_USERS, 0.5)
    x = torch.randn(N_USERS + N_ITEMS, 2, requires_grad=True)
    (mine,) = torch.autograd.grad(multiply(x, part).square().sum(), x)
    full = part.matrix().to_dense()
    torch.testing.assert_close(mine, 2 * full.T @ (full @ x.detach()))
