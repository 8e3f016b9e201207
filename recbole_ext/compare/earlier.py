"""What the folder of a comparison holds from the commands before: what stays, what must fit."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_ext.compare.collect import read_plan
from recbole_ext.compare.protocol import refuse_unequal
from recbole_ext.run_folder import PLAN
from recbole_ext.settings_reading import read_yaml
from recbole_ext.types import UserError

Row = dict[str, Any]
"""A row of ``plan.json``."""


def earlier_rows(place: Path, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows of the commands before: those that stay beside new ones, and the others.

    One name is one setting: other seeds of a new row's name stay only where settings, data and
    version are the same (``digest``; a row without one may be of anything), and controls only
    beside what they are of.

    Args:
        place: Folder of the comparison.
        rows: The new rows; an old row of the same run is in neither list.
    """
    old = _old(place)
    runs = {_name(row, row["name"]) + (row["seed"],) for row in rows}
    digests = {_name(row, row["name"]): row["digest"] for row in rows}
    changed = {
        name
        for row in old
        if (name := _name(row, row["name"])) in digests and row.get("digest") != digests[name]
    }
    stay: list[Row] = []
    go: list[Row] = []
    for row in old:
        is_of_changed = any(_name(row, row[key]) in changed for key in _about(row))
        if _name(row, row["name"]) + (row["seed"],) not in runs:
            (go if is_of_changed else stay).append(row)
    return stay, go


def refuse_other_protocol(
    place: Path, names: Collection[str], settings: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse new runs whose numbers would not compare with those that stay in the folder.

    Before the data are read: what the folder knows of them is of the split that it has.

    Args:
        place: Folder of the comparison.
        names: Names of the new runs. What has one of them is of the same settings, or goes.
        settings: Dataset -> settings of one of the new runs.

    Raises:
        UserError: Naming an old run and the first setting in which they differ.
    """
    for row in _strangers(place, names, settings):
        theirs = read_yaml(place / row["folder"] / "config.yaml")
        dataset = row["dataset"]
        refuse_unequal(
            _there(row), theirs, "this command", settings[dataset], dataset, _remedy(place)
        )


def refuse_other_fingerprint(
    place: Path, names: Collection[str], fingerprints: Mapping[str, str]
) -> None:
    """Refuse new runs on other data than those of the runs that stay in the folder.

    Args:
        place: Folder of the comparison.
        names: Names of the new runs.
        fingerprints: Dataset -> fingerprint of its data, empty where it was not read.

    Raises:
        UserError: Naming an old run.
    """
    for row in _strangers(place, names, fingerprints):
        known = {_fingerprint(place / row["folder"]), fingerprints[row["dataset"]]} - {None, ""}
        if len(known) > 1:
            raise UserError(
                f"{_there(row)} on {row['dataset']} was run on other data: {_remedy(place)}"
            )


def _strangers(place: Path, names: Collection[str], datasets: Collection[str]) -> list[Row]:
    """Return the rows that neither are of a new name nor controls of one, and were begun."""
    return [
        row
        for row in _old(place)
        if row["dataset"] in datasets
        and not {row[key] for key in _about(row)} & set(names)
        and (place / row["folder"] / "config.yaml").is_file()
    ]


def _there(row: Row) -> str:
    return f"the {row['name']} that is there"


def _remedy(place: Path) -> str:
    return f"{place} keeps the runs of another command, so name another --output_dir"


def _old(place: Path) -> list[Row]:
    return read_plan(place) if (place / PLAN).is_file() else []


def _about(row: Row) -> tuple[str, ...]:
    """Return the entries of a row that name what it is, or is a control of."""
    return ("name", "control_of", "model") if row["control_of"] else ("name",)


def _name(row: Row, name: str) -> tuple[Any, ...]:
    return row["dataset"], name


def _fingerprint(folder: Path) -> str | None:
    """Return the fingerprint of a finished run's data; a damaged result is done anew anyway."""
    try:
        return json.loads((folder / "result.json").read_text(encoding="utf-8")).get(
            "dataset_fingerprint"
        )
    except (OSError, ValueError, AttributeError):
        return None
