"""The graph of items that are alike: neighbours by the naive way, blocks, what is missing."""

from __future__ import annotations

import numpy as np
import torch

from recbole_ext.index import brute_force
from recbole_ext.modules.item_graph import item_graph, nearest

N = 40


def vectors(seed: int, missing: list[int], size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.randn(N, size, generator=torch.Generator().manual_seed(seed))
    values[missing] = 0
    return values, values.any(1)


def rows_of(graph) -> np.ndarray:
    return graph(torch.eye(N)).numpy()


def test_the_nearest_are_found_block_by_block(monkeypatch):
    values, present = vectors(1, [0, 7, 8])
    largest_block = []
    compare = brute_force.BruteForceIndex._compare

    def watched(self, queries, buffer):
        largest_block.append(len(queries))
        return compare(self, queries, buffer)

    monkeypatch.setattr(brute_force, "CPU_QUERIES", 5)
    monkeypatch.setattr(brute_force, "THREADS_QUERIES", 5)
    monkeypatch.setattr(brute_force.BruteForceIndex, "_compare", watched)
    rows, cols = nearest(values, present, 4).numpy()
    assert max(largest_block) == 5
    x = values.double().numpy()
    for item in range(N):
        cosine = {
            other: x[item] @ x[other] / np.linalg.norm(x[item]) / np.linalg.norm(x[other])
            for other in range(N)
            if present[other] and present[item]
        }
        expected = sorted(cosine, key=cosine.get)[-4:] if present[item] else []
        assert set(cols[rows == item]) == set(expected), item
        assert item in expected or not present[item]


def test_weights_of_what_is_missing_go_to_what_is_there():
    text, image = vectors(1, [0, 3, 5]), vectors(2, [0, 4, 5])
    found = rows_of(item_graph([(*text, 0.9), (*image, 0.1)], 4))
    alone = [rows_of(item_graph([(*one, 1.0)], 4)) for one in (text, image)]
    np.testing.assert_allclose(alone[0].sum(1), text[1], atol=1e-6)
    both = (text[1] & image[1]).numpy()
    np.testing.assert_allclose(found[both], 0.9 * alone[0][both] + 0.1 * alone[1][both], atol=1e-6)
    np.testing.assert_allclose(found[3], alone[1][3], atol=1e-6)  # it has its image alone
    np.testing.assert_allclose(found[4], alone[0][4], atol=1e-6)
    assert not found[[0, 5]].any() and not found[:, [0, 5]].any()  # they have nothing


def test_fewer_items_than_neighbours():
    values, present = vectors(1, list(range(3, N)))
    found = rows_of(item_graph([(values, present, 1.0)], 10))
    np.testing.assert_allclose(found[:3, :3], 1 / 3)
    assert not found[3:].any()


def test_gradients_go_back_along_the_edges():
    graph = item_graph([(*vectors(1, [0]), 0.9), (*vectors(2, [0]), 0.1)], 3)
    x = torch.randn(N, 2, requires_grad=True)
    weights = torch.randn(N, 2)
    (graph(x) * weights).sum().backward()
    torch.testing.assert_close(x.grad, torch.from_numpy(rows_of(graph)).T @ weights)
