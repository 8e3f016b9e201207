"""Reads the finished runs of one dataset, and refuses those that do not compare."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_ext.compare.protocol import refuse_unequal
from recbole_ext.compare.start import Start, read_start
from recbole_ext.compare.statistics import per_user
from recbole_ext.run_folder import PLAN
from recbole_ext.settings_kinds import PLACE_KEYS
from recbole_ext.settings_reading import read_yaml
from recbole_ext.trainer.run_log import RunLog
from recbole_ext.types import UserError

_COLUMNS = {"name", "model", "dataset", "seed", "control_of", "folder", "failure"}
_TOLERANCE = 1e-3
"""Beyond this, and what RecBole rounds off, two numbers are not of one ranking."""
_SETTINGS = {"USER_ID_FIELD", "ITEM_ID_FIELD", "dataset", "topk", "eval_args"}
_RESULT = {"best_valid", "dataset_fingerprint", "n_epochs", "n_parameters", "peak_memory_gib"}
_RESULT |= {"seconds", "seed", "test", "versions", "warm_start"}
_OF_A_SEED = {"seed", "pretrained_path", "pretrain_dir", *PLACE_KEYS} - {"accelerate"}
"""Settings that may differ between the seeds of one name."""


@dataclass
class Done:
    """A finished run.

    Attributes:
        row: Its row of the plan: ``name``, ``model``, ``seed``, ``control_of``.
        result: ``result.json``.
        settings: ``config.yaml``.
        ranks: ``per_user.parquet``, a row per positive of the test, sorted by user and item.
        epochs: The records of ``metrics.jsonl``.
        start: What it started from.
    """

    row: dict[str, Any]
    result: dict[str, Any]
    settings: dict[str, Any]
    ranks: pd.DataFrame
    epochs: list[dict[str, Any]]
    start: Start

    @property
    def name(self) -> str:
        """What the report calls it."""
        return self.row["name"]

    @property
    def seconds(self) -> float:
        """Seconds of its training, validations included, its start's left out."""
        if not self.start.n_epochs:
            return self.result["seconds"]["train"]
        # what goes on from a run has that one's epochs before its own
        own = self.epochs[self.start.n_epochs :]
        return sum(one["train_seconds"] + (one["valid_seconds"] or 0.0) for one in own)

    @property
    def seconds_in_all(self) -> float:
        """The same with its start's; NaN where these are not known."""
        before = self.start.seconds
        return math.nan if before is None else self.seconds + before

    @property
    def n_epochs(self) -> int:
        """Number of its epochs, its start's left out."""
        return self.result["n_epochs"] - self.start.n_epochs

    @cached_property
    def users(self) -> pd.DataFrame:
        """Metrics by user, [U, metrics]: the source of every number of the report."""
        return self._metrics(self.ranks, self.settings["USER_ID_FIELD"])

    @cached_property
    def positives(self) -> pd.DataFrame:
        """Metrics by positive of the test, as if each were its user's only one, [P, metrics]."""
        return self._metrics(self.ranks.assign(positive=np.arange(len(self.ranks))), "positive")

    def _metrics(self, ranks: pd.DataFrame, by: str) -> pd.DataFrame:
        return per_user(ranks, self.settings["topk"], by)

    def tied(self) -> dict[str, tuple[float, float]]:
        """Return metric -> (RecBole's, ours) where ties between scores let them differ.

        RecBole's ``topk`` orders tied items as they happen to lie, which may be by popularity; here
        they share the middle of their places.

        Raises:
            UserError: They differ more than ties allow: the files are not of one test.
        """
        ties = self.ranks["ties"]
        first = self.ranks["rank"] - ties // 2
        user = self.settings["USER_ID_FIELD"]
        at_best = self._metrics(self.ranks.assign(rank=first), user).mean()
        at_worst = self._metrics(self.ranks.assign(rank=first + ties), user).mean()
        means, found = self.users.mean(), {}
        rounding = 0.5 * 10.0 ** -self.settings.get("metric_decimal_place", 4)
        tolerance = max(_TOLERANCE, 1.01 * rounding)
        for name, value in self.result["test"].items():
            if name not in means or value is None:
                continue
            if not at_worst[name] - tolerance <= value <= at_best[name] + tolerance:
                raise UserError(
                    f"{self.name}, seed {self.row['seed']}: result.json says {name} {value:.4f}, "
                    f"and per_user.parquet {means[name]:.4f}, which ties between scores do not "
                    f"explain; remove the run folder {self.row['folder']} and run it once more"
                )
            if abs(value - means[name]) > tolerance:
                found[name] = (value, float(means[name]))
        return found


def read_plan(place: Path) -> list[dict[str, Any]]:
    """Return the rows of a comparison's ``plan.json``.

    Raises:
        UserError: The folder holds no comparison.
    """
    path = place / PLAN
    if not path.is_file():
        raise UserError(f"{place} holds no comparison (no plan.json); give its --output_dir")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if rows and all(_COLUMNS <= row.keys() for row in rows):
            return rows
    except (OSError, ValueError, TypeError, AttributeError):
        pass
    raise UserError(
        f"{path} is damaged; remove it and give the comparison's command once more: what is done "
        "is kept"
    )


def read_runs(place: Path, rows: list[dict[str, Any]]) -> list[Done]:
    """Return the finished runs among the rows of one dataset.

    Raises:
        UserError: Two of them differ in what must be equal; each is named.
    """
    shown = {row["folder"] for row in rows}
    done = [
        _read(place, row, shown)
        for row in rows
        if all((place / row["folder"] / n).is_file() for n in ("result.json", "per_user.parquet"))
    ]
    for number, one in enumerate(done):
        _refuse_unequal(done[0], one)
        for other in done[:number]:
            if other.name == one.name:
                _refuse_two_settings(other, one)
    return done


def _read(place: Path, row: dict[str, Any], shown: set[str]) -> Done:
    folder = place / row["folder"]
    try:
        settings = _whole("config.yaml", read_yaml(folder / "config.yaml"), _SETTINGS)
        ranks = pd.read_parquet(folder / "per_user.parquet")
        fields = [settings["USER_ID_FIELD"], settings["ITEM_ID_FIELD"]]
        _whole("per_user.parquet", ranks, {*fields, "rank", "ties"})
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        _whole("result.json", result, _RESULT)
        epochs = RunLog(folder).read()
        if len(epochs) != result["n_epochs"]:
            raise ValueError(f"metrics.jsonl has {len(epochs)} of {result['n_epochs']} epochs")
    except (OSError, ValueError, UserError) as error:
        why = str(error).strip().splitlines()[0].replace(str(folder), folder.name)
        raise UserError(
            f"{folder}: the run of {row['name']}, seed {row['seed']}, cannot be read ({why}); "
            "remove the folder and give the comparison's command once more"
        ) from error
    start = read_start(place, row, result, shown)
    return Done(row, result, settings, ranks.sort_values(fields, ignore_index=True), epochs, start)


def _whole(name: str, found: Any, keys: set[str]) -> Any:
    """Return what a file holds, where it is what it should be."""
    if not isinstance(found, dict | pd.DataFrame):
        raise ValueError(f"{name} holds no {'settings' if name == 'config.yaml' else 'result'}")
    missing = sorted(keys - set(found.keys()))
    if missing:
        raise ValueError(f"{name} has no {missing[0]}")
    return found


def _refuse_two_settings(first: Done, other: Done) -> None:
    """Refuse one name for two settings: its row would be a mean over both."""
    if first.row["control_of"]:  # how long one goes on, and what its mix is, is its seed's
        return
    ours, theirs = first.settings, other.settings
    for key in sorted((ours.keys() & theirs.keys()) - _OF_A_SEED):
        if ours[key] != theirs[key]:
            raise UserError(
                f"{key} of {first.name} is {ours[key]} with seed {first.row['seed']} and "
                f"{theirs[key]} with seed {other.row['seed']}: one row cannot hold both; give the "
                "comparison's command once more, with the seeds that the report shall have"
            )


def _refuse_unequal(first: Done, other: Done) -> None:
    names = [f"{one.name} (seed {one.row['seed']})" for one in (first, other)]
    refuse_unequal(names[0], first.settings, names[1], other.settings, first.settings["dataset"])
    pairs = {
        "dataset_fingerprint": (
            first.result["dataset_fingerprint"],
            other.result["dataset_fingerprint"],
        ),
        "number of test users": (len(first.users), len(other.users)),
    }
    for key, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise UserError(
                f"{key} is {ours} in the run of {names[0]} and {theirs} in that of {names[1]}: "
                "one table cannot hold both"
            )
    fields = [first.settings["USER_ID_FIELD"], first.settings["ITEM_ID_FIELD"]]
    if not first.ranks[fields].equals(other.ranks[fields]):
        raise UserError(
            f"{names[0]} and {names[1]} were tested on different users or items, as with a random "
            "split (eval_args order: RO) each seed is: one table cannot hold both"
        )
