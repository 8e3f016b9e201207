"""Writes ``results.csv`` (a row per run and metric), ``report.md`` and ``report.html``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_ext.compare import figures, tables
from recbole_ext.compare.analysis import Analysis
from recbole_ext.compare.collect import Done, read_plan, read_runs
from recbole_ext.compare.item_slices import by_feature, features_of, item_slices
from recbole_ext.compare.page import Block, html, markdown
from recbole_ext.compare.runner import split_file
from recbole_ext.compare.split import Split, load_split
from recbole_ext.run_folder import write_text
from recbole_ext.types import UserError

_COLUMNS = ["dataset", "model", "seed", "metric", "value"]


def write_report(place: Path) -> str:
    """Write the three files from what is in the comparison's folder; return the report's text.

    Raises:
        UserError: There is no comparison, or runs that one table cannot hold.
    """
    rows = read_plan(place)
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    title = f"Comparison on {', '.join(datasets)}"
    blocks: list[Block] = [("h1", title)]
    csv: list[tuple[Any, ...]] = []
    for dataset in datasets:
        mine = [row for row in rows if row["dataset"] == dataset]
        done = read_runs(place, mine)
        blocks += [("h2", dataset), *_missing(mine, done)]
        if not done:
            continue
        data = Analysis(done)
        blocks += _dataset(data, split_file(place, dataset))
        csv += [
            (dataset, one.name, one.row["seed"], metric, one.users[metric].mean())
            for one in done
            for metric in data.metrics
        ]
    table = pd.DataFrame(csv, columns=_COLUMNS)
    write_text(place / "results.csv", table.to_csv(index=False, float_format="%.6f"))
    text = markdown(blocks)
    write_text(place / "report.md", text)
    write_text(place / "report.html", html(title, blocks))
    return f"{text}\nreport: {place / 'report.html'}"


def _missing(rows: list[dict[str, Any]], done: list[Done]) -> list[Block]:
    have = {(one.name, one.row["seed"]) for one in done}
    return [
        ("p", f"Missing: {r['name']}, seed {r['seed']}: {r['failure'] or 'not run yet'}")
        for r in rows
        if (r["name"], r["seed"]) not in have
    ]


def _dataset(data: Analysis, split: Path) -> list[Block]:
    blocks: list[Block] = [
        ("h3", "Quality on the test"),
        ("table", tables.quality(data)),
        *(("p", note) for note in tables.ties(data)),
        (
            "p",
            "Every number of the test is of the ranks in per_user.parquet; validation is as "
            "result.json has it, where ties are taken as they lie. ± is the standard deviation "
            "over seeds; intervals are bootstraps over users, whose values are averaged over "
            "seeds.",
        ),
        *figures.quality(data),
    ]
    others = [name for name in data.runs if name != data.best]
    if others:
        pairs = [(name, data.best) for name in others]
        blocks += [
            ("h3", f"Against {data.best}"),
            (
                "p",
                f"{data.best} is the {_which(data)}. "
                "Paired over users: bootstrap interval, and p of a sign-flip permutation test "
                f"with Holm's correction for {_n_tests(data, pairs)} comparisons.",
            ),
            ("table", tables.differences(data, pairs, "model")),
            *(("p", note) for note in tables.fewer_seeds(data, pairs)),
        ]
    for name in data.runs:
        pairs = [(name, control) for control in data.controls_of(name)]
        if pairs:
            blocks += [
                ("h3", f"{name} against its controls"),
                ("table", tables.differences(data, pairs, f"gain of {name} over")),
                *(("p", note) for note in tables.fewer_seeds(data, pairs)),
            ]
    blocks += [
        *_by_what_is_known(data, split),
        ("h3", "Cost"),
        ("table", tables.cost(data)),
        *(("p", note) for note in tables.going_on(data)),
        *figures.training(data),
        ("h3", "What was equal, and what was not"),
        ("table", tables.equal(data)),
    ]
    return blocks


def _n_tests(data: Analysis, pairs: Sequence[tuple[str, str]]) -> int:
    return sum(bool(data.common_seeds(*pair)) for pair in pairs)


def _which(data: Analysis) -> str:
    if not data.validated:
        return "first baseline (there is no validation to choose by)"
    return f"baseline with the best {data.valid_metric} on validation"


def _by_what_is_known(data: Analysis, path: Path) -> list[Block]:
    """Return what needs the split, or why it is not there."""
    try:
        split = load_split(path)
    except UserError as error:
        return [("p", str(error))]
    if split and split.fingerprint == data.runs[data.best][0].result["dataset_fingerprint"]:
        has_others = len(data.runs) > 1
        return _warm_and_cold(data, split) + (figures.gains(data, split) if has_others else [])
    what = "is of other data" if split else "is missing"
    return [("p", f"{path} {what}, so nothing is shown by history length and item popularity.")]


def _warm_and_cold(data: Analysis, split: Split) -> list[Block]:
    """Return the table of warm and cold items, and of those with a feature and without."""
    one = data.runs[data.best][0]
    items = one.ranks[one.settings["ITEM_ID_FIELD"]].astype(str)
    notes: list[Block] = []
    slices = item_slices(items, split.popularity, (), one.settings)
    settings = [run.settings for runs in data.runs.values() for run in runs]
    # many runs use one feature, which is read once
    for name, of_run in {name: one for one in settings for name in features_of(one)}.items():
        try:
            slices |= by_feature(items, [name], of_run)
        except UserError as error:
            notes.append(("p", f"By {name} nothing is shown: {error}"))
    return [
        ("h3", "Warm and cold items"),
        ("table", tables.by_item(data, slices)),
        (
            "p",
            f"{data.metric} where the item to be found is one of these, by its interactions in "
            "training; how many, in the head.",
        ),
        *notes,
    ]
