"""FREEDOM: the contract; loss, scores and gradients against dense matrices; its two graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.utils import init_seed

from recbole_ext.callbacks.base import CallbackList
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.vocabulary import vocabulary_of
from recbole_ext.models.general.freedom import FREEDOM
from recbole_ext.modules.graph_conv import multiply
from recbole_ext.trainer.hooked_trainer import build_trainer
from recbole_ext.types import UserError
from tests.models.feature_help import Fake, item_feature
from tests.models.general_help import (
    GeneralContract,
    bpr_of,
    build,
    check,
    check_scores,
    features_of,
    normalised,
    weights_of,
    who_took_what,
)

DYNAMIC = {"distribution": "uniform", "sample_num": 1, "dynamic": True, "candidate_num": 2}


class TestFREEDOM(GeneralContract):
    model = "FREEDOM"


def neighbours_of(net, weights, k):
    """Return S [N, N], item by item: the k nearest of each modality that it has."""
    found = np.zeros((net.n_items,) * 2)
    features = {kind: features_of(net)[kind] for kind in weights}
    for item in range(1, net.n_items):
        mine = {kind: weights[kind] for kind in weights if features[kind][1][item]}
        for kind, weight in mine.items():
            values, present = features[kind]
            length = np.sqrt((values**2).sum(1))
            others = np.flatnonzero(present)
            cosine = values[others] @ values[item] / (length[others] * length[item])
            near = others[np.argsort(-cosine)[:k]]
            assert item in near
            found[item, near] += weight / sum(mine.values()) / k
    return found


def in_use(net):
    """Return the graph that a batch is propagated over, as it acts on the unit vectors."""
    n = net.n_users + net.n_items
    return multiply(torch.eye(n, dtype=torch.float64), net._graph_in_use()).numpy()


@pytest.mark.parametrize("modalities", [("text", "image"), ("image",)])
def test_losses_gradients_and_scores_by_their_formula(tiny_data_path, tmp_path, modalities):
    without = {} if "text" in modalities else {"text_feature": None}
    net, batch = build(
        "FREEDOM", tiny_data_path, tmp_path, n_neighbours=4, reg_weight=0.3, **without
    )
    weights = {"text": 0.9, "image": 0.1} if len(modalities) == 2 else {"image": 1.0}
    full, features = normalised(who_took_what(net, batch)), features_of(net)
    items_alike = neighbours_of(net, weights, 4)
    np.testing.assert_allclose(
        net.item_graph(torch.eye(net.n_items, dtype=torch.float64)), items_alike, atol=1e-7
    )
    user, pos, neg = (batch[key].numpy() for key in ("user_id", "item_id", "neg_item_id"))

    def vectors(w, graph):
        ids = w["item_embedding.weight"]
        x = np.concatenate([w["user_embedding.weight"], ids])
        h = (x + graph @ x + graph @ (graph @ x)) / 3
        return h[: net.n_users], h[net.n_users :] + items_alike @ ids

    net.losses(batch)  # draws the epoch's edges, which stay
    thinned = normalised(in_use(net) > 0)

    def losses(w):
        users, items = vectors(w, thinned)
        found = {"rec": bpr_of(users[user], items[pos], items[neg])}
        for kind, (values, present) in features.items():
            both = present[pos] & present[neg]
            assert not both.all()
            mapped = values @ w[f"project.{kind}.weight"].T
            found[kind] = 0.3 * bpr_of(users[user][both], mapped[pos[both]], mapped[neg[both]])
        return found

    check(net, batch, losses)
    check_scores(net, *vectors(weights_of(net), full))


def test_an_epoch_has_edges_of_its_own_and_an_evaluation_all(tiny_data_path, tmp_path):
    net, batch = build("FREEDOM", tiny_data_path, tmp_path, edge_dropout_prob=0.5)
    whole = who_took_what(net, batch)
    n_edges = whole.sum() / 2

    def edges():
        torch.manual_seed(1)
        net.losses(batch)
        graph = in_use(net)
        np.testing.assert_allclose(graph, normalised(graph > 0), atol=1e-7)
        assert not (graph > 0)[whole == 0].any() and (graph > 0).sum() / 2 == round(n_edges / 2)
        return graph

    first = edges()
    assert np.array_equal(edges(), first), "an epoch keeps its edges"
    with torch.no_grad():
        assert np.array_equal(net.eval()._graph_in_use().col, net.graph.csr.col)
    net.train()  # as a trainer does before each epoch
    assert np.array_equal(edges(), first), "the same generator draws the same edges"
    net.train()
    torch.manual_seed(2)
    net.losses(batch)
    assert not np.array_equal(in_use(net), first)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"text_feature": None, "image_feature": None}, "text_feature and image_feature: name one"),
        ({"edge_dropout_prob": 1.0}, "edge_dropout_prob: 1.0 must be at least 0 and less than 1"),
        ({"image_weight": -0.1}, r"image_weight: -0.1 must lie in \[0, 1\]"),
        ({"reg_weight": -0.1}, "reg_weight: -0.1 must be at least 0"),
        ({"n_neighbours": 0}, "n_neighbours: 0 must be greater than 0"),
        ({"train_neg_sample_args": None}, "train_neg_sample_args: FREEDOM compares items with neg"),
        (
            {"train_neg_sample_args": DYNAMIC},
            "train_neg_sample_args: FREEDOM keeps its edges for an",
        ),
    ],
)
def test_bad_settings_are_one_sentence(tiny_data_path, tmp_path, settings, sentence):
    contract = GeneralContract()
    contract.model = "FREEDOM"
    config = contract.make_config(tiny_data_path, tmp_path, **settings)
    with pytest.raises(UserError, match=sentence):
        FREEDOM.check_settings(config, None)


def test_images_may_have_the_whole_weight(tiny_data_path, tmp_path):
    net, _ = build("FREEDOM", tiny_data_path, tmp_path, n_neighbours=4, image_weight=1.0)
    graph = net.item_graph(torch.eye(net.n_items, dtype=torch.float64))
    np.testing.assert_allclose(graph, neighbours_of(net, {"image": 1.0}, 4), atol=1e-7)


@pytest.mark.parametrize("model", ["FREEDOM", "VBPR"])
def test_a_feature_that_says_nothing_is_refused(tiny_data_path, tmp_path, monkeypatch, model):
    monkeypatch.setattr(Fake, "_of", lambda self, content, n: np.zeros((n, self.size)))
    with pytest.raises(UserError, match="text_feature: '.*title' has zeros alone for the items of"):
        build(model, tiny_data_path, tmp_path)


def test_a_feature_with_several_vectors_for_an_item_is_refused(tiny_data_path, tmp_path):
    words = item_feature(tmp_path, "words", tokens=3)
    with pytest.raises(UserError, match="text_feature: '.*words' has several vectors for an item"):
        build("FREEDOM", tiny_data_path, tmp_path, text_feature=words)


def test_an_evaluation_propagates_once(tiny_data_path, tmp_path, monkeypatch):
    net, batch = build("FREEDOM", tiny_data_path, tmp_path)
    calls = []
    encode = net.encode
    monkeypatch.setattr(net, "encode", lambda: calls.append(1) or encode())

    def evaluate():
        calls.clear()
        net.eval()
        with torch.no_grad():
            return [net.full_sort_predict(batch[[row]]) for row in range(3)][0]

    first = evaluate()
    assert len(calls) == 1
    net.train()
    net.calculate_loss(batch).backward()
    torch.optim.SGD(net.parameters(), lr=1.0).step()
    assert not torch.equal(evaluate(), first) and len(calls) == 1
    with torch.no_grad():  # weights that move under an evaluation are noticed
        net.item_embedding.weight.mul_(2)
        net.full_sort_predict(batch[[0]])
    assert len(calls) == 2


def test_a_resumed_run_draws_the_edges_of_the_one_that_was_not_stopped(tiny_data_path, tmp_path):
    contract = GeneralContract()
    contract.model = "FREEDOM"

    def trained(epochs, resume=None):
        folder = tmp_path / f"{epochs} {resume is None}"
        folder.mkdir()
        config = contract.make_config(
            tiny_data_path, tmp_path, epochs=epochs, edge_dropout_prob=0.5, checkpoint_dir=folder
        )
        init_seed(config["seed"], True)
        dataset = create_dataset(config)
        train, valid, _ = create_loaders(config, dataset)
        net = contract.make_model(config, train.dataset)
        trainer = build_trainer(config, net, folder, CallbackList(), vocabulary_of(dataset))
        if resume:
            torch.manual_seed(99)  # what a new process has drawn so far does not matter
            trainer.resume_from(resume / "last.pt")
        trainer.fit(train, valid)
        return folder, net.state_dict()

    _, whole = trained(3)
    stopped, before = trained(1)
    _, resumed = trained(3, stopped)
    assert all(resumed[name].equal(value) for name, value in whole.items())
    assert not all(before[name].equal(value) for name, value in whole.items())
    assert whole.keys() == {
        "user_embedding.weight",
        "item_embedding.weight",
        "project.text.weight",
        "project.image.weight",
    }, "no graph and no feature is in a checkpoint"
