"""Tiny runs and candidates that the tests of both stages share; nothing is trained."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from recbole_ext.pipeline.retrieve import FULL_RANKING
from recbole_ext.quick_start import Run, load_run, run

LEAVE_ONE_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user"}
SIZES = {
    "SASRec": {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1, "loss_type": "CE"},
    "BPR": {"embedding_size": 8},
    "FM": {"embedding_size": 4},
    "Pop": {"user_inter_num_interval": "[8,inf)"},
}
_MADE: dict[str, Path] = {}


def tiny_run(model: str, data_path: Path, folder: Path) -> Path:
    """Return the run folder of a model with its first weights, made once in a process.

    FM ranks all items here, in place of RecBole's labels; Pop has users of eight and more alone.
    """
    if model not in _MADE:
        settings = {
            "data_path": str(data_path),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "MAX_ITEM_LIST_LENGTH": 10,
            "eval_args": {**LEAVE_ONE_OUT, "mode": "full"},
            "metrics": ["Recall"],
            "topk": [5, 10],
            "valid_metric": "Recall@10",
            "use_gpu": False,
            "show_progress": False,
            "state": "WARNING",
            "epochs": 0,
            "output_dir": str(folder / model),
            **SIZES[model],
        }
        run(model, "tiny", config_dict=settings)
        _MADE[model] = folder / model
    return _MADE[model]


@cache
def loaded(folder: Path) -> Run:
    """Return a tiny run, loaded once in a process; nobody may change it."""
    return load_run(folder, FULL_RANKING)


@pytest.fixture(scope="session")
def runs(tiny_data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Model name -> run folder."""
    folder = tmp_path_factory.mktemp("runs")
    return lambda model: tiny_run(model, tiny_data_path, folder)
