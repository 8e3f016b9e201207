"""A comparison on the tiny data; its jobs are done here, where a process is not the point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from recbole_ext.compare import child
from recbole_ext.compare.plan import plan
from recbole_ext.compare.runner import read_dataset, run_all
from recbole_ext.types import UserError

SMALL = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1}


def in_process(job: dict[str, Any], log: Path) -> str | None:
    """Do what ``runner.in_child`` does, without the process."""
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        child.do(job)
    except UserError as error:
        return str(error)
    return None


def tiny(data_path: Path) -> dict[str, Any]:
    """Return settings for all models of a comparison on ``tiny``."""
    return {
        "data_path": str(data_path),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": 10,
        "use_gpu": False,
        "epochs": 1,
        "train_batch_size": 64,
        "eval_batch_size": 64,
        "metrics": ["Recall", "NDCG"],
        "topk": [5, 10],
        "valid_metric": "NDCG@10",
        "show_progress": False,
        "models": {},
    }


def write_overrides(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def overrides(tiny_data_path: Path, tmp_path: Path) -> Path:
    return write_overrides(tmp_path / "all.yaml", tiny(tiny_data_path))


@pytest.fixture(scope="session")
def finished(tiny_data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished comparison of four models, one seed, with FTRagRec's controls."""
    folder = tmp_path_factory.mktemp("compare")
    settings = tiny(tiny_data_path)
    settings["models"] = {
        "BPR": {"embedding_size": 8},
        "DuoRec": SMALL,
        "FTRagRec": {**SMALL, "top_k": 20, "calibrate_top_k": [10, 20]},
    }
    path = write_overrides(folder / "all.yaml", settings)
    runs = plan(
        ["Pop", "BPR", "FTRagRec", "DuoRec"],
        ["tiny"],
        [2020],
        folder,
        path,
        controls=True,
        fingerprint_of=lambda name, wanted: read_dataset(name, wanted, folder, in_process),
    )
    lines: list[str] = []
    failures = run_all(runs, folder, lines.append, in_process)
    assert failures == {}, failures
    assert len(lines) == len(runs)
    return folder
