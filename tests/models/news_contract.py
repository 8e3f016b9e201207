"""The contract of the news models, on planted impressions; models trained for a few steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from contracts import ModelContract
from recbole.utils import init_seed

from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.evaluation.impressions import impression_metrics
from tests.models.news_help import SETTINGS

SMALL: dict[str, Any] = {
    **SETTINGS,
    "embedding_size": 16,
    "n_heads": 2,
    "query_size": 8,
    "metrics": ["AUC", "LogLoss"],
    "valid_metric": "AUC",
    "learning_rate": 0.01,
}


class NewsContract(ModelContract):
    """RecBole's own trainer, which the contract has, knows no impressions: the metric is AUC."""

    settings = SMALL
    zero_gradient = ("*.key.bias",)

    @pytest.fixture(scope="class")
    @classmethod
    def config(cls, news_data, tmp_path_factory):
        return cls().of(news_data("text"), tmp_path_factory.mktemp("news"))

    @pytest.fixture
    def gpu_config(self, news_data, tmp_path):
        return self.of(news_data("text"), tmp_path, use_gpu=True, gpu_id="0")

    @pytest.fixture(scope="class")
    @classmethod
    def loaders(cls, config):
        init_seed(config["seed"], True)
        return create_loaders(config, create_dataset(config))

    def of(self, data: tuple[str, str], folder: Any, **more: Any) -> Any:
        """Return the settings of planted data: their folder, and that of their vectors."""
        fields = {"load_col": SMALL["load_col"], "text_feature": data[1]}
        return self.make_config(data[0], folder, **{**fields, **more})


def made(model: str, data: tuple[str, str], **settings: Any) -> tuple[Any, Any]:
    """Return a model and its training loader."""
    net, loaders, _ = _made(model, data, settings)
    return net, loaders[0]


def trained_auc(model: str, data: tuple[str, str], steps: int = 60, **settings: Any) -> float:
    """Return the ImpAUC of the test after some steps."""
    net, loaders, config = _made(model, data, settings)
    optimizer = torch.optim.Adam(net.parameters(), lr=config["learning_rate"])
    done = 0
    while done < steps:
        for batch in loaders[0]:
            optimizer.zero_grad()
            net.calculate_loss(batch).backward()
            optimizer.step()
            done += 1
    net.eval()
    scores, labels, impressions = [], [], []
    with torch.no_grad():
        for batch, *_ in loaders[2]:
            scores.append(net.predict(batch).numpy())
            labels.append(batch["label"].numpy())
            impressions.append(batch["impression_id"].numpy())
    found, _ = impression_metrics(*map(np.concatenate, (impressions, scores, labels)))
    return found["auc"]


def _made(model: str, data: tuple[str, str], settings: dict[str, Any]) -> tuple[Any, Any, Any]:
    contract = NewsContract()
    contract.model = model
    config = contract.of(data, "unused", **settings)
    init_seed(config["seed"], True)
    loaders = create_loaders(config, create_dataset(config))
    return contract.make_model(config, loaders[0].dataset), loaders, config
