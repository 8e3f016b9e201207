"""The contract of the general recommenders over features, and dense numpy to check them by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts import ModelContract
from recbole.utils import init_seed

from recbole_ext.data.build import create_dataset, create_loaders
from tests.models.feature_help import item_feature

Arrays = dict[str, np.ndarray]
STEP = 1e-6
"""Of the differences that stand for gradients."""


class GeneralContract(ModelContract):
    """Items 3 and 17 have no text, 5 and 17 no image. The data are loaded once for a model."""

    @pytest.fixture(scope="class")
    @classmethod
    def config(cls, tiny_data_path, tmp_path_factory):
        return cls().make_config(tiny_data_path, tmp_path_factory.mktemp("general"))

    @pytest.fixture(scope="class")
    @classmethod
    def loaders(cls, config):
        return load(config)

    def make_config(self, data_path: Any, folder: Any, **more: Any) -> Any:
        features = {
            "text_feature": item_feature(folder, "title"),
            "image_feature": item_feature(folder, "poster", size=10, missing=(5, 17)),
        }
        return super().make_config(data_path, folder, **{**features, "embedding_size": 8, **more})


def load(config: Any) -> Any:
    init_seed(config["seed"], True)
    return create_loaders(config, create_dataset(config))


def build(model: str, data_path: Path, folder: Path, **settings: Any) -> tuple[Any, Any]:
    """Return a model in 64 bits and its training rows, as one batch with negatives."""
    contract = GeneralContract()
    contract.model = model
    config = contract.make_config(data_path, folder, train_batch_size=4096, **settings)
    train = load(config)[0]
    return contract.make_model(config, train.dataset).double(), next(iter(train))


def weights_of(net: Any) -> Arrays:
    return {name: weight.detach().numpy().copy() for name, weight in net.named_parameters()}


def features_of(net: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return modality -> vectors [N, F] and who has one [N]."""
    return {
        kind: (table.weight.detach().double().numpy(), table.present.numpy())
        for kind, table in net.tables.items()
    }


def who_took_what(net: Any, rows: Any) -> np.ndarray:
    """Return the graph of users and, after them, items: 1 where one took the other [U+N, U+N]."""
    graph = np.zeros((net.n_users + net.n_items,) * 2)
    for user, item in zip(rows["user_id"].tolist(), rows["item_id"].tolist(), strict=True):
        graph[user, net.n_users + item] = graph[net.n_users + item, user] = 1
    return graph


def normalised(graph: np.ndarray) -> np.ndarray:
    degree = graph.sum(1)
    scale = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1)), 0)
    return scale[:, None] * graph * scale[None, :]


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.log1p(np.exp(-x))


def bpr_of(user: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    return -log_sigmoid((user * positive).sum(1) - (user * negative).sum(1)).mean()


def check(net: Any, batch: Any, losses: Callable[[Arrays], dict[str, float]]) -> None:
    """Compare the named losses with a reference, and their gradients with its differences.

    Args:
        net: The model, in 64 bits.
        batch: What the losses are of.
        losses: Weights by name -> losses by name.
    """
    found, weights = net.losses(batch), weights_of(net)
    expected = losses(weights)
    assert list(found) == list(expected)
    for name, loss in found.items():
        assert loss.item() == pytest.approx(expected[name], rel=1e-6, abs=1e-9), name
    sum(found.values()).backward()
    rng = np.random.default_rng(0)
    for name, parameter in net.named_parameters():
        flat, moved = weights[name].reshape(-1), 0
        gradient = parameter.grad.reshape(-1).numpy()
        # the largest would be hard to get right by chance; the others are drawn
        places = [np.abs(gradient).argmax(), *rng.integers(flat.size, size=3)]
        for place in places:
            value, ends = flat[place], []
            for sign in (1, -1):
                flat[place] = value + sign * STEP
                ends.append(sum(losses(weights).values()))
            flat[place] = value
            difference = (ends[0] - ends[1]) / (2 * STEP)
            assert gradient[place] == pytest.approx(difference, rel=1e-6, abs=1e-8), (name, place)
            moved += difference != 0
        assert moved, name


def check_scores(net: Any, users: np.ndarray, items: np.ndarray) -> None:
    """Compare the scores of all users with the products of vectors [U, D] and [N, D]."""
    with torch.no_grad():
        batch = {net.USER_ID: torch.arange(net.n_users)}
        scores = net.eval().full_sort_predict(batch).numpy()
    np.testing.assert_allclose(scores[:, 1:], (users @ items.T)[:, 1:], rtol=1e-6, atol=1e-8)
    assert (scores[:, 0] == -np.inf).all()
