"""What the tests of a search share: its plan on the tiny data, and trials that do not train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recbole_ext.trainer.run_log import RunLog
from recbole_ext.tune import search as searching
from recbole_ext.tune.plan import Plan, plan_of
from recbole_ext.tune.trial_run import Outcome

SPACE = "learning_rate: {loguniform: [1e-4, 0.3]}\nembedding_size: {choice: [4, 8]}\n"


@pytest.fixture(scope="module", autouse=True)
def without_curves() -> Iterator[None]:
    """Draw no ``curves.png``: half the time of a trial on the tiny data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "draw", lambda self, metric: None)
        yield


@pytest.fixture(scope="module")
def plan_in(tiny_data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Plan]:
    """Folder -> the plan of a search there."""
    space = tmp_path_factory.mktemp("space") / "space.yaml"
    space.write_text(SPACE)
    settings = {
        "model": "BPR",
        "dataset": "tiny",
        "data_path": str(tiny_data_path),
        "use_gpu": False,
        "epochs": 2,
        "train_batch_size": 64,
        "topk": [5],
        "metrics": ["NDCG"],
        "valid_metric": "NDCG@5",
    }

    def plan(folder: Path, n_trials: int, space: Path = space, **changed: Any) -> Plan:
        (folder / "claims").mkdir(parents=True, exist_ok=True)
        return plan_of(folder, {**settings, **changed}, str(space), n_trials)

    return plan


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Lets trials do what a function of the values says instead of training."""

    def script(function: Any) -> None:
        def train(plan: Plan, values: dict[str, Any], *rest: Any) -> Outcome:
            return Outcome(function(values), False, {"n_epochs": 1, "test": {}})

        monkeypatch.setattr(searching, "train", train)

    return script
