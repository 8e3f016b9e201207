"""Builds FTRagRec, and DuoRec, on tiny data."""

from __future__ import annotations

from typing import Any

import pytest
from recbole.utils import init_seed

from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.vocabulary import vocabulary_of
from tests.models.ftragrec_help import OfFTRagRec


@pytest.fixture
def make(tiny_data_path, tmp_path):
    """Build a model on tiny data: ``make(key=value)`` returns model and loaders."""

    def build(model: str = "FTRagRec", files: tuple = (), seed: int = 1, **settings: Any) -> Any:
        contract = OfFTRagRec()
        contract.model = model
        contract.settings = {"pretrain": "none", **settings}
        if files:
            plain = contract.make_config(tiny_data_path, tmp_path).external_config_dict
            config = Config(model, "tiny", files, {**plain, **settings})
        else:
            config = contract.make_config(tiny_data_path, tmp_path)
        init_seed(config["seed"], True)
        dataset = create_dataset(config)
        loaders = create_loaders(config, dataset)
        net = contract.make_model(config, loaders[0]._dataset, seed)
        net.vocabulary = vocabulary_of(dataset)
        return net, loaders

    return build
