"""Schedules: a number as a function of progress, written in YAML as a number or a mapping.

``0.5`` is constant, as is ``{kind: constant, value: 0.5}``.
``{kind: linear, start: 0, end: 1, begin: 0, until: 10}`` goes from ``start`` to ``end`` between
the epochs (or steps) ``begin`` and ``until``, and stays at ``end``; ``cosine`` goes along half a
cosine. ``{kind: step, values: [[0, 1.0], [5, 0.1]]}`` takes each value from its boundary on, and
the first value before the first boundary.
"""

from __future__ import annotations

import inspect
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recbole_ext.types import UserError, suggest

Schedule = Callable[[float], float]
"""Progress in epochs or steps -> value."""


def constant(value: float) -> Schedule:
    """Return the schedule that is ``value`` everywhere."""
    return lambda progress: value


def linear(start: float, end: float, until: float, begin: float = 0.0) -> Schedule:
    """Return the line from ``start`` at ``begin`` to ``end`` at ``until``, constant outside."""
    return lambda progress: _mix(start, end, _fraction(progress, begin, until))


def cosine(start: float, end: float, until: float, begin: float = 0.0) -> Schedule:
    """Return half a cosine from ``start`` at ``begin`` to ``end`` at ``until``."""

    def value(progress: float) -> float:
        angle = math.pi * _fraction(progress, begin, until)
        return _mix(start, end, 0.5 * (1 - math.cos(angle)))

    return value


def step(values: Sequence[Sequence[float]]) -> Schedule:
    """Return the staircase that takes ``value`` from each ``[boundary, value]`` on."""
    stairs = sorted((float(at), float(value)) for at, value in values)
    bounds = [at for at, _ in stairs]
    return lambda progress: stairs[max(bisect_right(bounds, progress) - 1, 0)][1]


MAKERS: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "step": step,
}
"""Kind in YAML -> the function whose arguments the mapping gives."""


def build_schedule(spec: float | Mapping[str, Any], key: str) -> Schedule:
    """Build a schedule from its YAML form.

    Args:
        spec: A number, or a mapping with ``kind`` and the arguments of that kind.
        key: The configuration key, for the error message.

    Raises:
        UserError: The form is not one of the above.
    """
    if _is_number(spec):
        return constant(float(spec))  # type: ignore[arg-type]
    kind = spec.get("kind") if isinstance(spec, Mapping) else None
    if not isinstance(spec, Mapping) or not isinstance(kind, str) or kind not in MAKERS:
        raise UserError(
            f"{key}: a schedule is a finite number or a mapping with kind one of "
            f"{', '.join(MAKERS)}, not {spec!r}{suggest(str(kind), MAKERS)}"
        )
    arguments = {str(name): value for name, value in spec.items() if name != "kind"}
    try:
        inspect.signature(MAKERS[kind]).bind(**arguments)
        _check_values(arguments)
        return MAKERS[kind](**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}: {dict(spec)!r} is no {kind} schedule: {error}") from None


def _check_values(arguments: Mapping[str, Any]) -> None:
    """Refuse what is no finite number, an empty staircase, and a range that runs backwards."""
    for name, value in arguments.items():
        if name != "values" and not _is_number(value):
            raise ValueError(f"{name} is a finite number, not {value!r}")
    stairs = arguments.get("values", [[0, 0]])
    if not isinstance(stairs, Sequence) or not stairs or not all(map(_is_stair, stairs)):
        raise ValueError("values is a list of [boundary, value]")
    if "until" in arguments and arguments["until"] < arguments.get("begin", 0):
        raise ValueError("until lies before begin")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_stair(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(map(_is_number, value))


def _mix(start: float, end: float, fraction: float) -> float:
    return start * (1 - fraction) + end * fraction  # exact at both ends


def _fraction(progress: float, begin: float, until: float) -> float:
    if until == begin:  # a jump
        return float(progress >= until)
    return min(max((progress - begin) / (until - begin), 0.0), 1.0)
