"""Trains RecBole's built-in models for one epoch each on a slice of ml-100k, and prints a table.

    python tests/integration/builtin_models.py                       # all: ten minutes
    python tests/integration/builtin_models.py --models BPR SASRec

Each model runs through ``run_recbole_ext.py``, in a process of its own, forked from one which
has done the imports. The exit code is 1 when a model fails; one that needs an absent package is
skipped.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import multiprocessing
import os
import runpy
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ml100k_slice import NAME, write_slice

ROOT = Path(__file__).resolve().parents[2]
ENTRY = ROOT / "run_recbole_ext.py"
sys.path.insert(0, str(ROOT))
# Before torch is imported: tiny models are slower on many threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

COMMON: dict[str, Any] = {
    "epochs": 1,
    "train_batch_size": 512,
    "eval_batch_size": 4096,
    "MAX_ITEM_LIST_LENGTH": 20,
    "show_progress": False,
    "use_gpu": False,
    "state": "WARNING",
}
INTER = ["user_id", "item_id", "rating", "timestamp"]
USER = ["user_id", "age", "gender", "occupation"]
KG = {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
ITEM = ["item_id", "release_year", "class"]

FAMILY: dict[str, dict[str, Any]] = {
    "general": {"load_col": {"inter": INTER}},
    "sequential": {"load_col": {"inter": INTER}},
    "knowledge_aware": {"load_col": {"inter": INTER, **KG}},
    "context_aware": {
        "load_col": {"inter": INTER, "user": USER, "item": ITEM},
        "threshold": {"rating": 4},
    },
}
FAMILY["exlib"] = FAMILY["context_aware"]

ITEM_FEATURES = {"load_col": {"inter": INTER, "item": ITEM}}
NEGATIVES = {
    "train_neg_sample_args": {
        "distribution": "uniform",
        "sample_num": 1,
        "alpha": 1.0,
        "dynamic": False,
        "candidate_num": 0,
    }
}
ENTITY_VECTORS = {
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
    "load_col": {"inter": INTER, **KG, "ent": ["ent_id", "ent_emb"], "rel": ["rel_id", "rel_emb"]},
    "additional_feat_suffix": ["ent", "rel"],
    "alias_of_entity_id": ["ent_id"],
    "alias_of_relation_id": ["rel_id"],
    "preload_weight": {"ent_id": "ent_emb", "rel_id": "rel_emb"},
}
MODEL: dict[str, dict[str, Any]] = {
    "FPMC": NEGATIVES,
    "TransRec": NEGATIVES,
    "GRU4RecF": ITEM_FEATURES,
    "SASRecF": ITEM_FEATURES,
    "FDSA": ITEM_FEATURES,
    "S3Rec": {**ITEM_FEATURES, "train_stage": "pretrain", "pretrain_epochs": 1, "save_step": 1},
    "DIN": {"load_col": {"inter": INTER, "user": USER, "item": ["item_id", "release_year"]}},
    "DIEN": {"load_col": {"inter": INTER, "user": USER, "item": ["item_id", "release_year"]}},
    "KSR": ENTITY_VECTORS,
    "GRU4RecKG": ENTITY_VECTORS,
    "RaCT": {"train_stage": "actor_pretrain", "pretrain_epochs": 1, "save_step": 1},
    "FEARec": {"n_layers": 2},
    "NCL": {"num_clusters": 10},  # at most as many as there are users
    "ConvNCF": {"embedding_size": 64},
    "LDiffRec": {"n_cate": 1},  # more than one needs kmeans_pytorch
}
"""What a model needs beside the settings of its family."""

NEEDS = {"XGBoost": "xgboost", "LightGBM": "lightgbm", "NCL": "faiss"}
BROKEN = {"KSR": "multiplies float32 by float64, on any stack"}
"""Models that RecBole 1.2.1 itself cannot train."""


@dataclass
class Row:
    """One line of the table; ``ok`` is ``yes``, ``no`` or ``skipped``."""

    model: str
    family: str
    ok: str
    seconds: float
    metric: str

    def __str__(self) -> str:
        return f"{self.model:<13}{self.family:<17}{self.ok:<9}{self.seconds:7.1f}  {self.metric}"


def families() -> dict[str, str]:
    """Return every built-in model with its family."""
    from recbole_ext.registry import builtin_models

    found = {name: path.parent.name for name, path in builtin_models().items()}
    return {name: family.removesuffix("_recommender") for name, family in found.items()}


def settings_of(model: str, family: str, data: Path, folder: Path) -> dict[str, Any]:
    """Return the settings file's content for a model."""
    places = {"data_path": str(data), "output_dir": str(folder / model)}
    return {**COMMON, **FAMILY[family], **MODEL.get(model, {}), **places}


def train(model: str, settings: Path, log: Path) -> None:
    """Run the command of a user in this process; its output goes to ``log``."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(log.parent)
    config = f"--config_files={settings}"
    sys.argv = [str(ENTRY), f"--model={model}", f"--dataset={NAME}", config]
    runpy.run_path(str(ENTRY), run_name="__main__")


def run(model: str, family: str, data: Path, folder: Path, timeout: float) -> Row:
    """Train a model in a process of its own."""
    if model in BROKEN:
        return Row(model, family, "skipped", 0.0, BROKEN[model])
    package = NEEDS.get(model)
    if package and importlib.util.find_spec(package) is None:
        return Row(model, family, "skipped", 0.0, f"{package} is not installed")
    settings, log = folder / f"{model}.yaml", folder / f"{model}.log"
    settings.write_text(yaml.safe_dump(settings_of(model, family, data, folder)))
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    process = multiprocessing.get_context(method).Process(target=train, args=(model, settings, log))
    begun = time.perf_counter()
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        return Row(model, family, "no", timeout, f"not done after {timeout:.0f} s")
    seconds = time.perf_counter() - begun
    if process.exitcode != 0:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        why = lines[-1].strip() if lines else f"exit code {process.exitcode}"
        return Row(model, family, "no", seconds, why)
    return Row(model, family, "yes", seconds, measured(folder / model / "result.json"))


def measured(path: Path) -> str:
    """Return the first test metric of a run."""
    test = json.loads(path.read_text())["test"]
    return next((f"{name} {value:.4f}" for name, value in (test or {}).items()), "(pretraining)")


def import_once() -> None:
    """Import what every run imports, before the forks."""
    import matplotlib.figure  # noqa: F401
    import torch._dynamo  # noqa: F401 - the first optimizer of a process imports it

    import recbole_ext.quick_start  # noqa: F401

    for family in ("general", "sequential", "context_aware", "knowledge_aware"):
        importlib.import_module(f"recbole.model.{family}_recommender")


def main() -> int:
    """Train what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one model")
    parser.add_argument("--folder", type=Path, help="keep runs and logs in this new folder")
    chosen = parser.parse_args()

    import_once()
    family = families()
    unknown = [name for name in chosen.models or () if name not in family]
    if unknown:
        parser.error(f"RecBole has no model {', '.join(unknown)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        users, items, rows = write_slice(folder / "data")
        print(f"{NAME}: {users} users, {items} items, {rows} interactions\n")
        print("model        family           ok       seconds  first test metric, or why not")
        table = []
        for name in chosen.models or sorted(family, key=lambda name: (family[name], name)):
            table.append(run(name, family[name], folder / "data", folder, chosen.timeout))
            print(table[-1], flush=True)
    count = {ok: sum(row.ok == ok for row in table) for ok in ("yes", "no", "skipped")}
    print(f"\n{count['yes']} trained, {count['no']} failed, {count['skipped']} skipped")
    return 1 if count["no"] or not count["yes"] else 0


if __name__ == "__main__":
    sys.exit(main())
