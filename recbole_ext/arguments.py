"""Command line arguments for a function: its signature says what there is, its docstring helps.

A parameter whose type is a dataclass is a group: its fields are options too, so that what several
commands share is written once. ``from_`` is the option ``--from``, a word that Python keeps.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, get_args, get_type_hints

from recbole_ext.settings_reading import parse_value
from recbole_ext.types import UserError, suggest

EMPTY = inspect.Parameter.empty


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        kind: Type of its value.
        default: Without it; ``EMPTY`` where it must be given.
        words: What it is, for the help.
        parameter: Of the function or the group, whose value it is.
        group: Parameter of the function whose field it is, ``None`` where it is one itself.
    """

    kind: Any
    default: Any
    words: str
    parameter: str
    group: str | None = None


def call(function: Callable[..., Any], arguments: Sequence[str], command: str) -> Any:
    """Call a function with ``--key=value`` arguments, and ``--key`` for ``--key=True``.

    Args:
        function: Its parameters are of type str, int, float or bool, may be ``None`` beside, or
            are dataclasses of such fields.
        arguments: Of the command line.
        command: Named in errors.

    Raises:
        UserError: An argument that there is not, that is missing, or of the wrong type.
    """
    options = options_of(function)
    given = _given(options, arguments, command)
    for key, option in options.items():
        if option.default is EMPTY and key not in given:
            raise UserError(f"{command} needs --{key}=...; see {command} --help")
    values: dict[str, Any] = {
        options[key].parameter: v for key, v in given.items() if not options[key].group
    }
    for group, kind in get_type_hints(function).items():
        if group != "return" and is_dataclass(kind) and isinstance(kind, type):
            mine = {k: v for k, v in given.items() if options[k].group == group}
            values[group] = kind(**{options[k].parameter: v for k, v in mine.items()})
    return function(**values)


def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """Return key -> option of a function, those of its groups where these stand."""
    found: dict[str, Option] = {}
    types, words = get_type_hints(function), dict(_described(function))
    for key, parameter in inspect.signature(function).parameters.items():
        kind = types[key]
        if is_dataclass(kind) and isinstance(kind, type):
            found |= {
                name: Option(one.kind, one.default, one.words, one.parameter, key)
                for name, one in options_of(kind).items()
            }
        else:
            found[key.rstrip("_")] = Option(kind, parameter.default, words.get(key, ""), key)
    return found


def _given(options: dict[str, Option], arguments: Sequence[str], command: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        key = name.removeprefix("--")
        if not name.startswith("--"):
            raise UserError(
                f"{command}: argument '{argument}' is not understood; write --key=value"
            )
        if key not in options:
            hint = suggest(key, options) or f"; there are --{', --'.join(options)}"
            raise UserError(f"{command} has no --{key}{hint}")
        if key in given:
            raise UserError(f"{command}: --{key} is given twice; keep one")
        given[key] = _value(key, text if equals else None, options[key].kind, command)
    return given


def _value(key: str, text: str | None, wanted: Any, command: str) -> Any:
    kinds = get_args(wanted) or (wanted,)
    words = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
    if text is None and bool not in kinds:
        raise UserError(f"{command}: --{key} takes {words}; write --{key}=...")
    if text is None or str in kinds:
        return True if text is None else text
    value = parse_value(text)
    if value is None and type(None) in kinds:
        return None
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    is_one = any(isinstance(value, kind) for kind in kinds if kind is not type(None))
    if not is_one or (isinstance(value, bool) and bool not in kinds):
        raise UserError(f"{command}: --{key} takes {words}, not '{text}'; write --{key}=<{words}>")
    return value


def _described(function: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    """Yield what the docstring says of each argument; a dataclass has those of its bases too."""
    for one in reversed(function.__mro__) if isinstance(function, type) else [function]:
        text = inspect.cleandoc(one.__doc__ or "")
        _, _, rest = re.sub("\nAttributes:\n", "\nArgs:\n", text).partition("\nArgs:\n")
        for key, words in re.findall(r"^ {4}(\w+): ((?:.*\n?(?: {8}.*\n?)*))", rest, re.MULTILINE):
            yield key, " ".join(words.split())


def help_of(function: Callable[..., Any], command: str) -> str:
    """Return the help of a function: what it does, and each option with its default."""
    said = (inspect.getdoc(function) or "").partition("\nArgs:\n")[0]
    lines = [f"usage: {command} --key=value ...", "", said.strip(), ""]
    for key, option in options_of(function).items():
        needed = option.default is EMPTY
        shown = option.default not in (None, "", False)
        what = "needed" if needed else f"default {option.default}" if shown else ""
        lines.append(f"  --{key:<14} {option.words}{f' ({what})' if what else ''}")
    return "\n".join(lines)


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Return whether the help is asked for."""
    return any(argument in ("-h", "--help") for argument in arguments)


def call_or_help(function: Callable[..., Any], arguments: Sequence[str], command: str) -> int:
    """Call a function by ``--key=value`` arguments, or print its help where it is asked for."""
    if asks_for_help(arguments):
        print(help_of(function, command))
    else:
        call(function, arguments, command)
    return 0
