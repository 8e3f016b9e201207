"""Two small runs, shared by all tests of a diagnosis: one ranks items, one predicts clicks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MAX_LENGTH
from torch import nn

from recbole_ext.diagnose.check import Check, NotApplicable, Section
from recbole_ext.diagnose.subject import Subject
from recbole_ext.quick_start import load_run, run

STEPS = 30


def subject_of(folder: Path) -> Subject:
    return Subject(load_run(folder, {"log_wandb": False}), STEPS)


@pytest.fixture(scope="session")
def ranking_run(tiny_data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of SASRec on ``tiny``."""
    folder = tmp_path_factory.mktemp("runs") / "sasrec"
    settings = {
        "data_path": str(tiny_data_path),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": MAX_LENGTH,
        "features_dir": str(folder.parent / "none"),
        "train_neg_sample_args": None,
        "hidden_size": 16,
        "inner_size": 16,
        "epochs": 10,
        "learning_rate": 0.002,
        "topk": [5, 10],
    }
    return _run("SASRec", "tiny", folder, settings)


@pytest.fixture(scope="session")
def click_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of DeepFM on clicks that items and users have a liking for, one in six."""
    place = tmp_path_factory.mktemp("clicks")
    rng = np.random.default_rng(3)
    users, items = np.divmod(rng.permutation(60 * 100)[:4000], 100)  # no pair twice
    liking = rng.normal(size=60)[users] + 1.5 * rng.normal(size=100)[items] - 2.5
    label = rng.random(4000) < 1 / (1 + np.exp(-liking))
    rows = [
        f"u{u}\ti{i}\t{int(y)}\t{t}"
        for t, (u, i, y) in enumerate(zip(users, items, label, strict=True))
    ]
    (place / "clicks").mkdir()
    head = "user_id:token\titem_id:token\tlabel:float\ttimestamp:float"
    (place / "clicks" / "clicks.inter").write_text("\n".join([head, *rows]) + "\n")
    settings = {
        "data_path": str(place),
        "load_col": {"inter": ["user_id", "item_id", "label", "timestamp"]},
        "eval_args": {
            "split": {"RS": [0.8, 0.1, 0.1]},
            "order": "TO",
            "group_by": None,
            "mode": "labeled",
        },
        "features_dir": str(place / "none"),
        "train_neg_sample_args": None,
        "metrics": ["AUC", "LogLoss"],
        "valid_metric": "AUC",
        "embedding_size": 4,
        "mlp_hidden_size": [8],
        "learning_rate": 0.01,
        "train_batch_size": 256,
        "epochs": 6,
    }
    return _run("DeepFM", "clicks", place / "run", settings)


def _run(model: str, dataset: str, folder: Path, settings: dict[str, Any]) -> Path:
    more = {"use_gpu": False, "show_progress": False, "state": "ERROR", "seed": 2020}
    run(model, dataset, config_dict={**settings, **more, "output_dir": str(folder)})
    return folder


@pytest.fixture(scope="session")
def _ranking(ranking_run: Path) -> Subject:
    return subject_of(ranking_run)


@pytest.fixture(scope="session")
def _clicks(click_run: Path) -> Subject:
    return subject_of(click_run)


@pytest.fixture
def ranking(_ranking: Subject) -> Subject:
    """The run that ranks, to be spoilt."""
    return spoilt(_ranking)


@pytest.fixture
def clicks(_clicks: Subject) -> Subject:
    """The run that predicts clicks, to be spoilt."""
    return spoilt(_clicks)


def spoilt(subject: Subject) -> Subject:
    """Return a subject of the same run whose model, settings and splits are copies."""
    one = copy.copy(subject.run)
    one.model, one.config = copy.deepcopy(subject.model), copy.copy(subject.config)
    one.config.resolved = dict(subject.config.resolved)
    return Subject(one, STEPS)


def checks_of(group: Any, subject: Subject) -> dict[str, Check]:
    """Return name -> check of a group; a group that does not apply has the one named ``all``."""
    section = Section(group.TITLE)
    try:
        group.check(subject, section)
    except NotApplicable as reason:
        section.skip("all", str(reason))
    return {one.name: one for one in section.checks}


def starting(checks: dict[str, Check], words: str) -> Check:
    """Return the only check whose name begins with some words."""
    (found,) = [one for name, one in checks.items() if name.startswith(words)]
    return found


class Scoring(nn.Module):
    """A model whose scores are changed: ``change(scores, interaction)``."""

    def __init__(self, model: nn.Module, change: Any) -> None:
        super().__init__()
        self.model, self.change = model, change

    def predict(self, interaction: Any) -> Any:
        return self.change(self.model.predict(interaction), interaction)

    def full_sort_predict(self, interaction: Any) -> Any:
        return self.change(self.model.full_sort_predict(interaction), interaction)

    def calculate_loss(self, interaction: Any) -> Any:
        return self.model.calculate_loss(interaction)


def rescored(subject: Subject, change: Any) -> Subject:
    """Let the model of a subject score otherwise."""
    subject.model = subject.run.model = Scoring(subject.model, change)
    return subject
