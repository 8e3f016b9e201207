"""The plots of a report, from the runs of one dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recbole_ext.compare import charts
from recbole_ext.compare.analysis import Analysis, quartiles
from recbole_ext.compare.page import Block
from recbole_ext.compare.split import Split
from recbole_ext.compare.statistics import bootstrap_interval


def quality(data: Analysis) -> list[Block]:
    """Return bars of recall and NDCG at the validation's length; intervals are over users."""
    cut = data.metric.partition("@")[2]
    wanted = [m for m in (f"recall@{cut}", f"ndcg@{cut}") if m in data.metrics] or [data.metric]
    users = {name: data.mean_users(name) for name in data.runs}
    found: list[Block] = []
    for metric in wanted:
        values = {name: _interval(table[metric].to_numpy()) for name, table in users.items()}
        found.append(("figure", charts.bars(f"Test {metric}, 95 % interval over users", values)))
    return found


def training(data: Analysis) -> list[Block]:
    """Return learning curves, and quality against training time."""
    curves = {
        name: [
            [
                (record["epoch"] + 1.0, record["valid"][data.valid_metric])
                for record in one.epochs
                if data.valid_metric in (record["valid"] or {})
            ]
            for one in runs
        ]
        for name, runs in data.runs.items()
    }
    curves = {name: [c for c in several if c] for name, several in curves.items()}
    curves = {name: several for name, several in curves.items() if several}
    names = list(data.runs)
    found: list[Block] = []
    if curves:
        title = f"Validation {data.valid_metric} by epoch, a line per seed"
        found.append(("figure", charts.lines(title, "epoch", data.valid_metric, curves, names)))
    points = {
        name: (
            float(np.mean([one.seconds_in_all for one in runs])),
            float(data.mean_users(name)[data.metric].mean()),
        )
        for name, runs in data.runs.items()
    }
    # a start of unknown cost has no place there
    points = {name: point for name, point in points.items() if not np.isnan(point[0])}
    if not points:
        return found
    title = f"Test {data.metric} against training time"
    x = "seconds, warm start included (logarithm)"
    found.append(("figure", charts.scatter(title, x, data.metric, points, names)))
    return found


def gains(data: Analysis, split: Split) -> list[Block]:
    """Return the gain over the best baseline by history length, and by popularity of the item."""
    others = [name for name in data.runs if name != data.best and not data.is_control(name)]
    run = data.runs[data.best][0]
    users, items = (run.ranks[run.settings[field]] for field in ("USER_ID_FIELD", "ITEM_ID_FIELD"))
    lengths = np.array([split.history.get(str(user), 0) for user in run.users.index])  # [U]
    counts = np.array([split.popularity.get(str(item), 0) for item in items])  # [P]
    assert len(users) == len(counts)
    wanted = (
        ("users", lengths, "history length", "interactions of the user in training"),
        (
            "positives",
            counts,
            "item popularity",
            "interactions of the item in training",
        ),
    )
    return [
        block
        for by, values, what, x in wanted
        for block in _gain(data, others, by, values, what, x)
    ]


def _gain(
    data: Analysis, others: Sequence[str], by: str, values: np.ndarray, what: str, x: str
) -> list[Block]:
    found = {name: g for name in others if (g := data.gains(name, data.best, by)) is not None}
    if not found:
        return []
    groups = quartiles(values)
    series = {
        name: [_interval(gain[mask]) for mask in groups.values()] for name, gain in found.items()
    }
    title = f"Gain in {data.metric} over {data.best} by {what}"
    y = f"gain in {data.metric}, 95 % interval"
    return [("figure", charts.intervals(title, x, y, list(groups), series, list(data.runs)))]


def _interval(values: np.ndarray) -> charts.Interval:
    low, high = bootstrap_interval(values)
    return float(values.mean()), low, high
