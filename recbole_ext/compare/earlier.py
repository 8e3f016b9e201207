"""What the folder of a comparison holds from the commands before: what stays, what must fit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_ext.compare.collect import read_plan
from recbole_ext.compare.protocol import refuse_unequal
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
    old = read_plan(place) if (place / "plan.json").is_file() else []
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
        about = ("name", "control_of", "model") if row["control_of"] else ("name",)
        is_of_changed = any(_name(row, row[key]) in changed for key in about)
        if _name(row, row["name"]) + (row["seed"],) not in runs:
            (go if is_of_changed else stay).append(row)
    return stay, go


def refuse_beside_earlier(
    place: Path,
    rows: Sequence[Row],
    settings: Mapping[str, Mapping[str, Any]],
    fingerprints: Mapping[str, str],
) -> None:
    """Refuse new runs that the report could not hold beside what stays in the folder.

    Args:
        place: Folder of the comparison.
        rows: The new rows.
        settings: Dataset -> settings of one of the new runs.
        fingerprints: Dataset -> fingerprint of its data, empty where it was not read.

    Raises:
        UserError: Naming the runs and the first setting in which they differ.
    """
    names = {row["dataset"]: row["name"] for row in reversed(rows)}
    for row in earlier_rows(place, rows)[0]:
        dataset, folder = row["dataset"], place / row["folder"]
        if dataset not in names or not (folder / "config.yaml").is_file():
            continue
        remedy = f"{place} holds that run of another command, so name another --output_dir"
        theirs = read_yaml(folder / "config.yaml")
        of_first = f"the {row['name']} that is there"
        refuse_unequal(of_first, theirs, names[dataset], settings[dataset], dataset, remedy)
        known = {_fingerprint(folder), fingerprints[dataset]} - {None, ""}
        if len(known) > 1:
            raise UserError(f"{of_first} on {dataset} was run on other data: {remedy}")


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
