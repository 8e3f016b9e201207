"""What ``test_processes.py`` does in each of two processes, which import it by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from recbole.utils import init_seed

from recbole_ext.callbacks.base import Callback, CallbackList
from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset, create_loaders
from recbole_ext.evaluation.ranks import RankRecorder
from recbole_ext.trainer.hooked_trainer import build_trainer
from recbole_ext.trainer.processes import gathered
from recbole_ext.types import TrainState


class StopInOne(Callback):
    """Asks for the stop in the first process alone, as one that reads a clock may."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_epoch_end(self, state: TrainState) -> None:
        assert state.save is not None and state.folder is not None
        state.save(state.folder / "snapshot.pt")
        if self.rank == 0:
            state.stop = "the first process has had enough"


def build(config: Config, folder: Path) -> tuple[Any, Any, Any]:
    """Return a trainer, its training data and its test data; the weights are the seed's."""
    init_seed(config["seed"], True)
    train, _, test = create_loaders(config, create_dataset(config))
    init_seed(config["seed"], True)
    model = config.model_class(config, train._dataset)
    hooks = CallbackList([StopInOne(config["local_rank"])])
    trainer = build_trainer(config, model, folder, hooks, {})
    trainer.eval_collector.data_collect(train)  # as `fit` does: some metrics count items
    return trainer, train, test


def rows_of(recorder: RankRecorder) -> list[list[int]]:
    """Return user, item, rank and ties of each positive, sorted."""
    columns = [torch.cat(column) for column in zip(*recorder._parts, strict=True)]
    return sorted(torch.stack(columns, dim=1).tolist())  # [P, 4]


def work(config: Config, folder: Path) -> dict[str, Any]:
    """Evaluate, train without validation until the first process stops, evaluate."""
    trainer, train, test = build(config, folder)
    before = trainer.evaluate(test, load_best_model=False)
    trainer.fit(train)
    trainer.ranks = RankRecorder()
    after = trainer.evaluate(test)
    weights = trainer.model.user_embedding.weight.tolist()
    return {
        "metrics": gathered((before, after)),
        "epochs": gathered(trainer.state.epoch + 1),
        "weights": gathered(weights),
        "ranks": gathered(rows_of(trainer.ranks)),
    }
