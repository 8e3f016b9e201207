"""Reads the finished runs of one dataset, and refuses those that do not compare."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_ext.compare.plan import EQUAL_KEYS
from recbole_ext.compare.statistics import per_user
from recbole_ext.config import read_yaml
from recbole_ext.types import UserError

_ROUNDING = 1.01e-4
"""RecBole rounds its metrics to four digits; the mean over users may differ by no more."""


@dataclass
class Done:
    """A finished run: its plan's row, result, settings, and metrics by user [U, metrics]."""

    model: str
    seed: int
    result: dict[str, Any]
    settings: dict[str, Any]
    users: pd.DataFrame
    n_epochs: int

    def not_reproduced(self) -> dict[str, tuple[float, float]]:
        """Return metric -> (result's, users' mean) where the two differ by more than rounding.

        Ties can make them differ: here tied items share the middle place, topk takes any.
        """
        means = self.users.mean()
        both = {n: (v, float(means[n])) for n, v in self.result["test"].items() if n in means}
        return {n: pair for n, pair in both.items() if abs(pair[0] - pair[1]) > _ROUNDING}


def read_plan(place: Path) -> list[dict[str, Any]]:
    """Return the rows of a comparison's ``plan.json``.

    Raises:
        UserError: The folder holds no comparison.
    """
    path = place / "plan.json"
    if not path.is_file():
        raise UserError(f"{place} holds no comparison (no plan.json); give its --output_dir")
    return json.loads(path.read_text(encoding="utf-8"))


def read_runs(place: Path, rows: list[dict[str, Any]]) -> list[Done]:
    """Return the finished runs among the rows of one dataset.

    Raises:
        UserError: Two of them differ in what must be equal; each is named.
    """
    done: list[Done] = []
    for row in rows:
        folder = place / row["folder"]
        if not (folder / "result.json").is_file() or not (folder / "per_user.parquet").is_file():
            continue
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        settings = read_yaml(folder / "config.yaml")
        ranks = pd.read_parquet(folder / "per_user.parquet")
        users = per_user(ranks, settings["topk"], settings["USER_ID_FIELD"])
        log = folder / "metrics.jsonl"
        n_epochs = len(log.read_text(encoding="utf-8").splitlines()) if log.is_file() else 0
        done.append(Done(row["model"], row["seed"], result, settings, users, n_epochs))
    for one in done[1:]:
        _refuse_unequal(done[0], one)
    return done


def _refuse_unequal(first: Done, other: Done) -> None:
    pairs = {key: (first.settings.get(key), other.settings.get(key)) for key in EQUAL_KEYS}
    key = "dataset_fingerprint"
    pairs[key] = (first.result[key], other.result[key])
    pairs["number of test users"] = (len(first.users), len(other.users))
    for key, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise UserError(
                f"{key} is {ours} in the run of {first.model} (seed {first.seed}) and {theirs} in "
                f"that of {other.model} (seed {other.seed}): one table cannot hold both"
            )
    if not first.users.index.equals(other.users.index):
        raise UserError(f"{first.model} and {other.model} were tested on different users")
