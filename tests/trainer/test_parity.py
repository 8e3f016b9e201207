"""With no callbacks, the hooked trainer is RecBole's trainer, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.trainer import Trainer
from recbole.utils import init_seed

from recbole_ext.callbacks.base import CallbackList
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.data.vocabulary import vocabulary_of
from recbole_ext.trainer.hooked_trainer import build_trainer

SETTINGS = {
    "SASRec": {"hidden_size": 16, "inner_size": 32, "n_layers": 1},
    "BPR": {"embedding_size": 16},
}


def train(
    model_name: str, settings: dict[str, Any], folder: Path, hooked: bool
) -> tuple[dict, float, dict]:
    folder.mkdir()
    config = Config(model_name, "tiny", config_dict={**settings, "checkpoint_dir": str(folder)})
    init_seed(config["seed"], True)
    dataset = create_dataset(config)
    train_data, valid_data, _ = create_loaders(config, dataset)
    init_seed(config["seed"], True)
    model = config.model_class(config, train_data._dataset)
    if hooked:
        trainer = build_trainer(config, model, folder, CallbackList(), vocabulary_of(dataset))
    else:
        trainer = Trainer(config, model)
    score, result = trainer.fit(train_data, valid_data)
    return model.state_dict(), float(score), {name: float(value) for name, value in result.items()}


@pytest.mark.parametrize("model_name", SETTINGS)
def test_parameters_after_three_epochs_are_those_of_recboles_trainer(
    model_name: str, tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(
        tmp_path
    )  # RecBole's trainer leaves TensorBoard files in the working directory
    settings = {**tiny_settings, **SETTINGS[model_name], "epochs": 3}
    if model_name == "BPR":
        settings.pop("train_neg_sample_args")
    theirs, their_score, their_result = train(
        model_name, settings, tmp_path / "theirs", hooked=False
    )
    ours, our_score, our_result = train(model_name, settings, tmp_path / "ours", hooked=True)
    assert theirs.keys() == ours.keys()
    for name in theirs:
        assert torch.equal(theirs[name], ours[name]), name
    assert (their_score, their_result) == (our_score, our_result)
