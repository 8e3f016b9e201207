"""RecBole's special trainers: hooks reach their batches, and what they keep is resumed exactly."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

import pytest
import recbole.trainer
import torch
from recbole.trainer import Trainer

from recbole_ext.callbacks.base import Callback, CallbackList
from recbole_ext.trainer.batch_hooks import BatchHooks
from recbole_ext.trainer.checkpoint import read_checkpoint
from recbole_ext.trainer.hooked_trainer import RunHooks, build_trainer
from recbole_ext.types import TrainState, UserError
from tests.trainer.training import prepare, records, write_knowledge

TRAINERS = [
    cls
    for _, cls in inspect.getmembers(recbole.trainer, inspect.isclass)
    if issubclass(cls, Trainer) and cls is not Trainer
]
KNOWLEDGE = {
    "load_col": {
        "inter": ["user_id", "item_id", "timestamp"],
        "kg": ["head_id", "relation_id", "tail_id"],
        "link": ["item_id", "entity_id"],
    }
}
FEATURES = {
    "load_col": {
        "inter": ["user_id", "item_id", "timestamp"],
        "item": ["item_id", "class", "release_year"],
    },
    "selected_features": ["class", "release_year"],
    "pooling_mode": "sum",
}
MODELS: dict[str, dict[str, Any]] = {
    "SASRec": {},
    "KGCN": {**KNOWLEDGE, "embedding_size": 8, "neighbor_sample_size": 2},
    "MKR": {**KNOWLEDGE, "embedding_size": 8, "kg_embedding_size": 8},
    "CKE": {**KNOWLEDGE, "embedding_size": 8, "kg_embedding_size": 8},
    "RippleNet": {**KNOWLEDGE, "embedding_size": 8, "n_memory": 4},
    "RecVAE": {"hidden_dimension": 8, "latent_dimension": 4},
    "LightGCN": {"embedding_size": 8},
    "MultiVAE": {"mlp_hidden_size": [16], "latent_dimension": 8},
    "MacridVAE": {"encoder_hidden_size": [16], "embedding_size": 8, "kfac": 2},
    "LINE": {"embedding_size": 8},
    "DiffRec": {"dims_dnn": [16], "embedding_size": 4, "steps": 2, "history_num_per_term": 2},
    "LDiffRec": {"n_cate": 1},
    "SASRecF": {**FEATURES, "hidden_size": 8, "inner_size": 8, "n_layers": 1},
    "Pop": {},
    "ItemKNN": {},
}
"""A model of each special trainer, and those that keep something beside their weights."""


class Kill(Callback):
    """Ends the process at the start of an epoch."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.kill_at = kill_at

    def on_epoch_start(self, state: TrainState) -> None:
        if state.epoch == self.kill_at:
            raise KeyboardInterrupt


class Count(Kill):
    """Counts the calls of the batch hooks."""

    def __init__(self, kill_at: int | None = None) -> None:
        super().__init__(kill_at)
        self.batches = self.steps = 0

    def on_batch_start(self, state: TrainState) -> None:
        self.batches += 1

    def on_batch_end(self, state: TrainState) -> None:
        self.steps += 1


@pytest.fixture
def settings(tiny_settings: dict[str, Any], tiny_data_path: Path, tmp_path: Path) -> dict[str, Any]:
    shutil.copytree(tiny_data_path / "tiny", tmp_path / "data" / "tiny")
    write_knowledge(tmp_path / "data")
    more = {"metrics": ["NDCG"], "train_batch_size": 200, "data_path": str(tmp_path / "data")}
    return {**tiny_settings, **more}


@pytest.mark.parametrize("base", TRAINERS, ids=lambda cls: cls.__name__)
def test_hooks_stand_around_every_trainer_and_inside_it(base: type) -> None:
    order = type("Hooked", (RunHooks, base, BatchHooks), {}).__mro__
    assert order.index(RunHooks) < order.index(base) < order.index(BatchHooks)
    assert order.index(BatchHooks) + 1 == order.index(Trainer)


def test_there_are_special_trainers() -> None:
    names = {"KGTrainer", "MKRTrainer", "RecVAETrainer", "S3RecTrainer", "TraditionalTrainer"}
    assert names <= {cls.__name__ for cls in TRAINERS}


@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_was_cut_off_ends_as_the_whole_one(
    model: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**settings, **MODELS[model], "epochs": 3, "stopping_step": 10}
    whole = prepare(model, settings, tmp_path / "whole", [counted := Count()])
    whole.fit()
    assert counted.steps == counted.batches == whole.trainer.state.step
    assert counted.steps > 0 or model in ("Pop", "ItemKNN")
    traditional = whole.trainer.epochs == 1
    cut = prepare(model, settings, tmp_path / "cut", [Count(None if traditional else 1)])
    if traditional:
        cut.fit()
    else:
        with pytest.raises(KeyboardInterrupt):
            cut.fit()
    assert_ends_alike(whole, prepare(model, settings, tmp_path / "cut", [Count()]), tmp_path)


def test_a_resumed_ncl_has_its_cluster_centres(settings: dict[str, Any], tmp_path: Path) -> None:
    """Its loop has no batch hooks, and it clusters anew only every third epoch."""
    pytest.importorskip("faiss")
    more = {"embedding_size": 8, "n_layers": 1, "num_clusters": 4, "m_step": 3, "warm_up_step": 1}
    settings = {**settings, **more, "epochs": 5, "stopping_step": 10}
    whole = prepare("NCL", settings, tmp_path / "whole", [Kill()])
    whole.fit()
    cut = prepare("NCL", settings, tmp_path / "cut", [Kill(4)])
    with pytest.raises(KeyboardInterrupt):
        cut.fit()
    assert_ends_alike(whole, prepare("NCL", settings, tmp_path / "cut", [Kill()]), tmp_path)


def assert_ends_alike(whole: Any, again: Any, tmp_path: Path) -> None:
    """Resume the run in ``cut`` and compare it with ``whole``, bit by bit."""
    again.trainer.resume_from(tmp_path / "cut" / "last.pt")
    again.fit()
    for name in ("best.pt", "last.pt"):
        ours, theirs = (read_checkpoint(tmp_path / run / name) for run in ("cut", "whole"))
        assert (ours["epoch"], ours["step"]) == (theirs["epoch"], theirs["step"])
        assert ours["state_dict"].keys() == theirs["state_dict"].keys()
        for key, value in theirs["state_dict"].items():
            assert torch.equal(ours["state_dict"][key], value), (name, key)
    lines = [
        [{k: v for k, v in line.items() if "seconds" not in k} for line in records(tmp_path / run)]
        for run in ("cut", "whole")
    ]
    assert lines[0] == lines[1] and len(lines[0]) == whole.trainer.epochs
    tested = again.trainer.evaluate(again.test)
    assert tested == whole.trainer.evaluate(whole.test)


def test_the_two_tasks_of_a_knowledge_model_are_named(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    run = prepare("MKR", {**settings, **MODELS["MKR"], "epochs": 1}, tmp_path / "run")
    run.fit()
    (record,) = records(tmp_path / "run")
    assert set(record["losses"]) == {"rs_loss", "kg_loss"}


def test_a_loop_of_its_own_has_no_batch_hooks_and_says_so(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """NCL's trainer copies RecBole's loop."""
    settings = {**settings, "embedding_size": 8, "num_clusters": 3, "n_layers": 2, "epochs": 1}
    run = prepare("NCL", settings, tmp_path / "plain")
    run.fit()
    assert len(records(tmp_path / "plain")) == 1
    assert run.trainer.evaluate(run.test)
    hooked = prepare("NCL", settings, tmp_path / "hooked", [Count()])
    with pytest.raises(UserError, match="NCLTrainer has a training loop of its own.* remove Count"):
        hooked.fit()


def test_a_pre_training_stage_has_its_records_and_its_weights(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = {
        **settings,
        **{key: FEATURES[key] for key in ("load_col",)},
        **{"hidden_size": 8, "inner_size": 8, "n_layers": 1, "item_attribute": "class"},
        **{"train_stage": "pretrain", "pretrain_epochs": 2, "save_step": 2},
    }
    run = prepare("S3Rec", settings, tmp_path / "pre", [counted := Count()])
    run.fit()
    assert counted.steps == run.trainer.state.step == 2 * len(run.train)
    assert [line["valid"] for line in records(tmp_path / "pre")] == [None, None]
    kept = tmp_path / "pre" / "S3Rec-tiny-2.pth"
    assert read_checkpoint(kept)["model"] == "S3Rec"
    assert read_checkpoint(tmp_path / "pre" / "best.pt")["model"] == "S3Rec"
    fine = {**settings, "train_stage": "finetune", "pre_model_path": str(kept), "epochs": 1}
    tuned = prepare("S3Rec", fine, tmp_path / "fine")
    start = tuned.model.item_embedding.weight.detach().clone()
    assert torch.equal(start, read_checkpoint(kept)["state_dict"]["item_embedding.weight"])
    tuned.fit()
    assert records(tmp_path / "fine")[0]["valid"]


def test_a_library_that_trains_by_itself_takes_no_callbacks(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbole_ext.trainer import hooked_trainer

    monkeypatch.setattr(hooked_trainer, "get_trainer", lambda *_: recbole.trainer.XGBoostTrainer)
    config = {"MODEL_TYPE": None, "model": "XGBoost"}
    with pytest.raises(UserError, match="XGBoost is trained by its own library.*remove callbacks"):
        build_trainer(config, None, tmp_path, CallbackList([Count()]), {})
