"""Which numbers a reranker's settings may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recbole_ext.types import UserError


def check_ranges(
    settings: Mapping[str, Any],
    *,
    from_one: Sequence[str] = (),
    from_zero: Sequence[str] = (),
    above_zero: Sequence[str] = (),
) -> None:
    """Refuse numbers that cannot be meant; a setting that is not given is none.

    Args:
        settings: Of a reranker.
        from_one: Keys of numbers from 1.
        from_zero: Keys of numbers from 0.
        above_zero: Keys of numbers above 0.

    Raises:
        UserError: Naming the key, its range and the value given.
    """
    bounds = [
        *((key, "from 1", lambda value: value >= 1) for key in from_one),
        *((key, "from 0", lambda value: value >= 0) for key in from_zero),
        *((key, "above 0", lambda value: value > 0) for key in above_zero),
    ]
    for key, words, is_inside in bounds:
        value = settings[key]
        if value is not None and not is_inside(value):  # NaN is in no range
            raise UserError(f"{key} takes numbers {words}, not {value}")
