"""The runs of one dataset, by name: what is compared with what, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from recbole.evaluator.register import smaller_metrics

from recbole_ext.compare.collect import Done
from recbole_ext.registry import get_model


class Analysis:
    """Finished runs of one dataset.

    Args:
        done: One or more.

    Attributes:
        runs: Name -> its runs, one per seed.
        metrics: Metrics by user that every run has.
        metric: The metric that the differences are of: the one of validation, where it has one by
            user.
        best: Name of the baseline that was best on validation; the first, where there is none.
        validated: Whether any run had a validation.
        tied: Name -> metric -> (RecBole's, ours), means over seeds; see :meth:`Done.tied`.
    """

    def __init__(self, done: Sequence[Done]) -> None:
        self.runs: dict[str, list[Done]] = {}
        for one in done:
            self.runs.setdefault(one.name, []).append(one)
        self.settings = done[0].settings
        self.metrics = [name for name in done[0].result["test"] if name in done[0].users]
        self.valid_metric = str(self.settings["valid_metric"]).lower()
        self.metric = self.valid_metric if self.valid_metric in self.metrics else self.metrics[0]
        self.validated = any(one.result["best_valid"] for one in done)
        self.best = self._best_baseline()
        self.tied = {name: both for name, runs in self.runs.items() if (both := _tied(runs))}

    def _best_baseline(self) -> str:
        # a model made to start from another is what is compared, however it started here; the
        # others are its baselines
        baselines = [
            name
            for name, runs in self.runs.items()
            if not self.is_control(name)
            and not getattr(get_model(runs[0].row["model"]), "warm_start", None)
        ]

        sign = -1 if self.valid_metric.partition("@")[0] in smaller_metrics else 1

        # by validation: the best on the test would be chosen by what it is then judged on
        def valid(name: str) -> float:
            scores = [one.result["best_valid"].get(self.valid_metric) for one in self.runs[name]]
            return float(np.mean([-np.inf if score is None else sign * score for score in scores]))

        return max(baselines or list(self.runs), key=valid)

    def is_control(self, name: str) -> bool:
        """Return whether a name is a control's."""
        return bool(self.runs[name][0].row["control_of"])

    def controls_of(self, name: str) -> list[str]:
        """Return the names of a model's controls."""
        return [other for other, runs in self.runs.items() if runs[0].row["control_of"] == name]

    def mean_users(self, name: str) -> pd.DataFrame:
        """Return metrics by user, averaged over seeds, [U, metrics]."""
        runs = self.runs[name]
        return sum((one.users for one in runs[1:]), runs[0].users) / len(runs)

    def common_seeds(self, name: str, over: str) -> list[int]:
        """Return the seeds that both have, in the order of the first's runs."""
        theirs = {one.row["seed"] for one in self.runs[over]}
        return [seed for one in self.runs[name] if (seed := one.row["seed"]) in theirs]

    def gains(self, name: str, over: str, by: str = "users") -> np.ndarray | None:
        """Return ``metric`` less that of ``over``, averaged over the seeds that both have.

        Args:
            name: Name of a model.
            over: Name of another.
            by: ``users`` [U] or ``positives`` [P].

        Returns:
            ``None`` where they have no seed in common.
        """
        theirs = {one.row["seed"]: getattr(one, by)[self.metric] for one in self.runs[over]}
        pairs = [
            (getattr(one, by)[self.metric], theirs[one.row["seed"]])
            for one in self.runs[name]
            if one.row["seed"] in theirs
        ]
        if not pairs:
            return None
        return np.mean([(ours - other).to_numpy() for ours, other in pairs], axis=0)


def _tied(runs: Sequence[Done]) -> dict[str, tuple[float, float]]:
    """Return the metrics that ties change in one of the runs, and both means over the runs."""
    names = dict.fromkeys(name for one in runs for name in one.tied())
    return {
        name: (
            float(np.mean([one.result["test"][name] for one in runs])),
            float(np.mean([one.users[name].mean() for one in runs])),
        )
        for name in names
    }


def quartiles(values: np.ndarray) -> Mapping[str, np.ndarray]:
    """Return label -> which values, for the four quarters of them that are not empty.

    Equal values stay together, so the quarters of small counts are not equally large.

    Args:
        values: Whole numbers, [n].
    """
    edges = np.quantile(values, [0.25, 0.5, 0.75])  # [3]
    quarter = np.searchsorted(edges, values, side="left")  # [n]
    found = {}
    for i in range(4):
        mask = quarter == i  # [n]
        if mask.any():
            low, high = values[mask].min(), values[mask].max()
            found[f"{low}" if low == high else f"{low}–{high}"] = mask
    return found
