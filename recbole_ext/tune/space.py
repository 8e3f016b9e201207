"""The search space: a YAML file with a line per setting, in RecBole's words for a search.

``learning_rate: {loguniform: [1e-4, 1e-2]}``. The bounds of ``loguniform`` are the values
themselves; RecBole's are exponents of e.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest
from pathlib import Path
from typing import Any

from recbole_ext.compare.protocol import EQUAL_KEYS
from recbole_ext.settings_kinds import PLACE_KEYS
from recbole_ext.settings_reading import read_yaml
from recbole_ext.types import UserError, suggest

EXAMPLES = {
    "choice": "[32, 64, 128]",
    "uniform": "[0.0, 0.5]",
    "loguniform": "[1e-4, 1e-2]",
    "quniform": "[0.0, 0.5, 0.1]",
    "int": "[1, 4]",
    "logint": "[8, 256]",
}
"""Kind -> how its values are written: what there is, or from where to where (and the step)."""
NOT_SEARCHED = {
    *(*EQUAL_KEYS, *PLACE_KEYS, "model", "dataset", "seed", "nproc"),
    *("load_col", "benchmark_filename", "threshold", "repeatable"),
    *("metric_decimal_place", "valid_metric_bigger"),
}
"""Settings of the data, of what is measured, or of where: trials compare with one value only."""


@dataclass(frozen=True)
class Range:
    """The values of one setting.

    Attributes:
        kind: A key of :data:`EXAMPLES`.
        values: Of ``choice`` all of them, of the others low, high and, for ``quniform``, the step.
    """

    kind: str
    values: tuple[Any, ...]

    def suggest(self, trial: Any, key: str) -> Any:
        """Return the value of a setting in a trial; asked once more it is the same."""
        if self.kind == "choice":
            by_name = {_storable(value): value for value in self.values}
            return by_name[trial.suggest_categorical(key, list(by_name))]
        low, high, *step = self.values
        is_log = self.kind.startswith("log")
        if self.kind.endswith("int"):
            return trial.suggest_int(key, low, high, log=is_log)
        return trial.suggest_float(key, low, high, step=step[0] if step else None, log=is_log)

    def value_of(self, stored: Any) -> Any:
        """Return the setting's value for what the storage has."""
        if self.kind != "choice":
            return stored
        return {_storable(value): value for value in self.values}[stored]

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that a check of the settings must let pass."""
        if self.kind == "choice":
            return self.values
        drawn = int if self.kind.endswith("int") else float
        return tuple(drawn(end) for end in self.values[:2])


Space = Mapping[str, Range]


def read_space(path: str | Path) -> dict[str, Range]:
    """Read a search space.

    Args:
        path: YAML, ``setting: {kind: values}`` per line.

    Raises:
        UserError: Naming the setting that cannot be searched in this way.
    """
    given = read_yaml(path)
    if not given:
        raise UserError(f"{path}: the space is empty; {_usage('learning_rate', 'loguniform')}")
    for key in given:
        whole = next((one for one in given if key.startswith(f"{one}.")), None)
        if whole:
            raise UserError(
                f"{path}: {key} is an entry of {whole}, which is searched as a whole; keep one"
            )
    return {key: _range(key, value, path) for key, value in given.items()}


def corners(space: Space) -> list[dict[str, Any]]:
    """Return settings in which every end, and every choice, comes once."""
    rows = zip_longest(*(one.ends for one in space.values()))
    first = [one.ends[0] for one in space.values()]
    return [
        {k: f if v is None else v for k, v, f in zip(space, row, first, strict=True)}
        for row in rows
    ]


def written(space: Space) -> dict[str, Any]:
    """Return the space as its file has it, for the storage."""
    return {key: {one.kind: list(one.values)} for key, one in space.items()}


def _range(key: str, given: Any, path: str | Path) -> Range:
    where = f"{path}: {key}"
    if key in EXAMPLES:
        raise UserError(
            f"{where} is a kind of search, no setting; {_usage('learning_rate', key)}, "
            "a line per setting"
        )
    setting = key.partition(".")[0]
    if setting in NOT_SEARCHED or setting.endswith("_FIELD"):
        raise UserError(
            f"{where} is no setting to search: trials with different values of it do not compare; "
            "give one value to all, in --config_files or as --key=value"
        )
    if not isinstance(given, dict) or len(given) != 1:
        raise UserError(f"{where} needs one kind of search; {_usage(key, 'choice')}")
    kind, values = next(iter(given.items()))
    if kind not in EXAMPLES:
        raise UserError(
            f"{where}: there is no kind '{kind}'{suggest(str(kind), EXAMPLES)} "
            f"(there are: {', '.join(EXAMPLES)})"
        )
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: {kind} takes a list; {_usage(key, kind)}")
    return Range(
        kind, _choices(where, values) if kind == "choice" else _bounds(where, kind, values)
    )


def _choices(where: str, values: list[Any]) -> tuple[Any, ...]:
    if any(value is None for value in values):
        raise UserError(f"{where}: choice has an empty value; write each one out")
    if len({_storable(value) for value in values}) < len(values):  # True is 1 to the storage
        raise UserError(f"{where}: choice {values} has a value twice; keep one")
    return tuple(values)


def _bounds(where: str, kind: str, values: list[Any]) -> tuple[Any, ...]:
    allowed = int if kind.endswith("int") else (int, float)
    is_number = all(isinstance(v, allowed) and not isinstance(v, bool) for v in values)
    n = 3 if kind == "quniform" else 2
    if len(values) != n or not is_number or not all(map(math.isfinite, values)):
        numbers = "whole numbers" if kind.endswith("int") else "numbers"
        raise UserError(f"{where}: {kind} takes {n} {numbers}, as {EXAMPLES[kind]}, not {values}")
    low, high, *step = values
    if low >= high:
        turned = f"write [{high}, {low}]" if low > high else "a single value is no search"
        raise UserError(f"{where}: the range of {kind} is upside down or empty, {values}; {turned}")
    if kind.startswith("log") and low <= 0:
        raise UserError(
            f"{where}: {kind} {values} begins at 0 or below; it takes the values themselves, "
            f"above 0, as {EXAMPLES[kind]} (RecBole's exponents -8,0 are [3.4e-4, 1])"
        )
    if step and not 0 < step[0] <= high - low:
        raise UserError(f"{where}: the step of {kind} {values} is not between 0 and the range")
    if step and (beyond := _beyond(low, high, step[0])):
        last = float(Decimal(str(high)) - beyond)
        raise UserError(
            f"{where}: {kind} {values} does not end on a step; write [{low}, {last}, {step[0]}]"
        )
    return tuple(values)


def _beyond(low: float, high: float, step: float) -> Decimal:
    """Return how far the end is beyond the last step, in the numbers as they are written."""
    return (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step))


def _storable(value: Any) -> Any:
    """Return a choice as the storage takes it: lists and mappings as text."""
    return value if isinstance(value, (str, int, float, bool)) else json.dumps(value)


def _usage(key: str, kind: str) -> str:
    return f"write {key}: {{{kind}: {EXAMPLES[kind]}}}"
