"""Checks what YAML gives against a signature: names, missing ones, and types by annotation."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from recbole_ext.types import UserError, suggest

_WORDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
}


def check_arguments(where: str, target: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Check keyword arguments against a class or function before it is called.

    Args:
        where: What the arguments belong to, for the message: ``"Freeze"``, ``"Freeze.rules[0]"``.
        target: The class or function; its annotations are the types.
        given: Name -> value, as YAML gave them.

    Raises:
        UserError: An unknown name (with near ones), a missing argument, or a wrong type.
    """
    parameters = inspect.signature(target).parameters
    names = [
        n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in given:
        if not isinstance(name, str) or (name not in names and not takes_any):
            known = f"it takes {', '.join(names)}" if names else "it takes none"
            raise UserError(
                f"{where} has no argument '{name}'{suggest(str(name), names)} ({known})"
            )
    for name in names:
        if name not in given and parameters[name].default is inspect.Parameter.empty:
            raise UserError(f"{where} needs the argument '{name}'")
    hints = _hints(target)
    for name, value in given.items():
        if not fits(value, hints.get(name, Any)):
            wanted = describe(hints[name])
            hint = _near_literal(value, hints[name])
            raise UserError(f"{where}: {name} takes {wanted}, not {value!r}{hint}")


def at_least(low: float, where: str, **values: float | None) -> None:
    """Refuse values below ``low``; ``None`` is left out.

    Raises:
        UserError: Naming the argument and its value.
    """
    for name, value in values.items():
        if value is not None and not value >= low:  # not `value < low`: NaN is refused too
            raise UserError(f"{where}: {name} must be at least {low}, not {value!r}")


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value from YAML is of an annotated type; unknown annotations fit."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments
    if hint in (int, float):  # true is an int in Python, and must not be one here
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    if origin in (list, tuple) and arguments:
        return isinstance(value, origin) and all(fits(one, arguments[0]) for one in value)
    if origin is dict and arguments:
        return isinstance(value, dict) and all(
            fits(key, arguments[0]) and fits(one, arguments[1]) for key, one in value.items()
        )
    kind = origin or hint
    return isinstance(value, kind) if isinstance(kind, type) else True


def describe(hint: Any) -> str:
    """Return an annotation in words: ``a number or null``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(describe, arguments))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    words = _WORDS.get(origin or hint, getattr(hint, "__name__", str(hint)))
    if origin is list and arguments and arguments[0] in _WORDS:
        return f"{words} with {_WORDS[arguments[0]]} per entry"
    return words


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    function: Any = target.__init__ if inspect.isclass(target) else target  # type: ignore[misc]
    try:
        return get_type_hints(function)
    except NameError:  # a user's annotation that exists under TYPE_CHECKING only
        return {}


def _near_literal(value: Any, hint: Any) -> str:
    words = [word for word in get_args(hint) if isinstance(word, str)]
    return suggest(value, words) if isinstance(value, str) else ""
