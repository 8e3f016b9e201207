"""Command line arguments for a function: its signature says what there is, its docstring helps."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_type_hints

from recbole_ext.settings_reading import parse_value
from recbole_ext.types import UserError, suggest


def call(function: Callable[..., Any], arguments: Sequence[str], command: str) -> Any:
    """Call a function with ``--key=value`` arguments, and ``--key`` for ``--key=True``.

    Args:
        function: Its parameters are of type str, int, float or bool, or may be ``None`` beside.
        arguments: Of the command line.
        command: Named in errors.

    Raises:
        UserError: An argument that there is not, that is missing, or of the wrong type.
    """
    types, parameters = get_type_hints(function), inspect.signature(function).parameters
    given: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        key = name.removeprefix("--")
        if not name.startswith("--"):
            raise UserError(
                f"{command}: argument '{argument}' is not understood; write --key=value"
            )
        if key not in parameters:
            hint = suggest(key, parameters) or f"; there are --{', --'.join(parameters)}"
            raise UserError(f"{command} has no --{key}{hint}")
        if key in given:
            raise UserError(f"{command}: --{key} is given twice; keep one")
        given[key] = _value(key, text if equals else "True", types[key], command)
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in given:
            raise UserError(f"{command} needs --{key}=...; see {command} --help")
    return function(**given)


def _value(key: str, text: str, wanted: Any, command: str) -> Any:
    kinds = get_args(wanted) or (wanted,)
    if str in kinds:
        return text
    value = parse_value(text)
    if value is None and type(None) in kinds:
        return None
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    is_one = any(isinstance(value, kind) for kind in kinds if kind is not type(None))
    if not is_one or (isinstance(value, bool) and bool not in kinds):
        words = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
        raise UserError(f"{command}: --{key} takes {words}, not '{text}'")
    return value


def help_of(function: Callable[..., Any], command: str) -> str:
    """Return the help of a function: what it does, and each argument with its default."""
    text = inspect.getdoc(function) or ""
    said, _, rest = text.partition("\nArgs:\n")
    described = dict(re.findall(r"^ {4}(\w+): ((?:.*\n?(?: {8}.*\n?)*))", rest, re.MULTILINE))
    lines = [f"usage: {command} --key=value ...", "", said.strip(), ""]
    for key, parameter in inspect.signature(function).parameters.items():
        default = parameter.default
        needed = default is inspect.Parameter.empty
        what = (
            "needed" if needed else f"default {default}" if default not in (None, "", False) else ""
        )
        words = " ".join(described.get(key, "").split())
        lines.append(f"  --{key:<14} {words}{f' ({what})' if what else ''}")
    return "\n".join(lines)
