"""The graph of news and entities, its hops and its layers against loops in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_ext.modules.graph_conv import SparseGraph
from recbole_ext.modules.graph_layers import GatLayers, SageLayers
from recbole_ext.modules.news_graph import Edges, HopGraph, MessageGraph, mean_of_present

NAMES = {0: [], 1: [1, 2], 2: [2], 3: [], 4: [3, 1], 5: [4]}
"""Entities of each news; 0 is the padding."""
N, E, D = 6, 5, 4
NEIGHBOURS = [
    *([N + e for e in NAMES[n]] for n in range(N)),
    *([n for n in range(N) if e in NAMES[n]] for e in range(E)),
]


@pytest.fixture
def edges() -> Edges:
    members = torch.zeros(N, 3, dtype=torch.long)
    for news, entities in NAMES.items():
        members[news, : len(entities)] = torch.tensor(entities, dtype=torch.long)
    members[2, 1] = 2  # written twice, and counted once
    return Edges(members, E)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def test_the_mean_over_neighbours_and_its_transpose(edges):
    wanted = np.zeros((N + E, N + E))
    for node, near in enumerate(NEIGHBOURS):
        for other in near:
            wanted[node, other] = 1 / len(near)
    mean, transposed = edges.mean()
    np.testing.assert_allclose(mean.matrix().to_dense().numpy(), wanted, rtol=1e-6)
    np.testing.assert_allclose(transposed.matrix().to_dense().numpy(), wanted.T, rtol=1e-6)
    assert edges.present.tolist() == [bool(NAMES[n]) for n in range(N)]


def test_a_mean_of_what_is_there():
    values = torch.tensor([[2.0, 0.0], [0.0, 0.0], [4.0, 6.0]])
    found = mean_of_present(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 1]), values, 3)
    assert found.tolist() == [[3, 3], [0, 0], [0, 0]]


def hops(text, stored):
    """Return of each news the mean of its entities, and of these that of their news' texts."""
    of_entity = np.zeros((E, text.shape[1]))
    for e in range(E):
        texts = [text[n] for n in range(N) if e in NAMES[n] and text[n].any()]
        of_entity[e] = np.mean(texts, 0) if texts else 0
    first, second = np.zeros((N, stored.shape[1])), np.zeros((N, text.shape[1]))
    for n in range(N):
        known = [stored[e] for e in NAMES[n] if stored[e].any()]
        first[n] = np.mean(known, 0) if known else 0
        known = [of_entity[e] for e in NAMES[n] if of_entity[e].any()]
        second[n] = np.mean(known, 0) if known else 0
    return first, second


def test_hops_are_means_of_means_of_what_is_known(edges):
    text, stored = random(N, 3), random(E, 2, seed=1)
    text[[0, 2]] = 0
    stored[[0, 3]] = 0
    graph = HopGraph(edges, D, text, stored, use_entity_id=False)
    first, second = hops(text.numpy(), stored.numpy())
    ids = torch.arange(N)
    np.testing.assert_allclose(graph.hops["entity"](ids).numpy(), first, atol=1e-6)
    np.testing.assert_allclose(graph.hops["text"](ids).numpy(), second, atol=1e-6)
    # 5 names an entity without a vector whose only text is its own
    assert graph.present.tolist() == [False, True, True, False, True, True]


def test_a_news_without_anything_known_around_it_has_no_place_in_the_graph(edges):
    text = torch.zeros(N, 3)
    text[1] = 1.0
    graph = HopGraph(edges, D, text, None, use_entity_id=False)
    assert graph.present.tolist() == [False, True, True, False, True, False]


def test_the_entities_own_vectors_are_averaged_for_the_news_of_a_batch(edges):
    graph = HopGraph(edges, D, None, None, use_entity_id=True)
    ids = torch.tensor([4, 3, 1, 1, 0])
    table = graph.entity_embedding.weight.detach()
    wanted = [table[NAMES[n]].mean(0) if NAMES[n] else torch.zeros(D) for n in ids.tolist()]
    own = torch.stack(wanted)
    torch.testing.assert_close(graph._own(ids), own)
    branch = own.relu() @ graph.out.weight.T
    torch.testing.assert_close(graph(ids), own + branch)


def sage(x, layers):
    for i, (own, near) in enumerate(zip(layers.own, layers.neighbours, strict=True)):
        means = torch.stack(
            [x[near_ids].mean(0) if near_ids else torch.zeros(D) for near_ids in NEIGHBOURS]
        )
        x = x @ own.weight.T + own.bias + means @ near.weight.T
        x = x.clamp_min(0) if i == 0 else x
    return x


def gat(x, layers, n_heads):
    for i, layer in enumerate(layers.maps):
        y = (x @ layer.weight.T).view(N + E, n_heads, -1)
        rows = []
        for node, near in enumerate(NEIGHBOURS):
            heads = []
            for h in range(n_heads):
                a, b = layers.attention[i, :, h]
                others = [*near, node]
                logits = torch.stack([a @ y[node, h] + b @ y[o, h] for o in others])
                weights = F.leaky_relu(logits, 0.2).softmax(0)
                heads.append((weights[:, None] * y[others, h]).sum(0))
            rows.append(torch.cat(heads))
        x = torch.stack(rows)
        x = F.elu(x) if i == 0 else x
    return x


@pytest.mark.parametrize("kind", ["sage", "gat"])
def test_layers_are_as_written_and_have_their_gradients(edges, kind):
    torch.manual_seed(0)
    if kind == "sage":
        layers = SageLayers(SparseGraph(*edges.mean()), D, 2)
    else:
        layers = GatLayers(*edges.nodes(), N + E, D, 2, 2)
    x = random(N + E, D).requires_grad_()
    y = x.detach().clone().requires_grad_()
    found = layers(x)
    wanted = sage(y, layers) if kind == "sage" else gat(y, layers, 2)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    wanted.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)


def test_news_and_entities_begin_with_what_is_known_of_them(edges):
    text, stored = random(N, 3), random(E, 2, seed=1)
    text[2] = stored[3] = 0
    graph = MessageGraph(edges, D, text, stored, True, torch.nn.Identity())
    wanted = F.normalize(text, dim=1) @ graph.maps["text"].weight.T
    wanted[2] = graph.missing[0]
    torch.testing.assert_close(graph(torch.arange(N)), wanted)
    entities = graph._first("entity", 1)
    torch.testing.assert_close(entities[3], graph.missing[1])
    mapped = F.normalize(stored[1], dim=0) @ graph.maps["entity"].weight.T
    torch.testing.assert_close(entities[1], mapped)


def test_the_layers_run_once_for_an_evaluation_and_once_for_a_step(edges):
    class Counted(torch.nn.Module):
        n = 0

        def forward(self, x):
            self.n += 1
            return x

    graph = MessageGraph(edges, D, random(N, 3), None, False, Counted())
    graph(torch.tensor([1, 2]))
    assert graph.layers.n == 1
    graph.eval()
    with torch.no_grad():
        for news in range(N):
            graph(torch.tensor([news]))
        assert graph.layers.n == 2
        graph.missing.mul_(2)  # other weights, another result
        graph(torch.tensor([1]))
    assert graph.layers.n == 3
