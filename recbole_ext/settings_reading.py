"""Settings as users write them: YAML files, and ``--key=value`` with values that are YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from recbole_ext.types import UserError


class Loader(yaml.SafeLoader):
    """YAML as RecBole reads it (``1e-3`` is a number); dates are text, and no key comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there before; PyYAML would take the last one without a word."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for number, (key, _) in enumerate(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value in keys[:number]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' is there twice", key.start_mark
                )
        return super().construct_mapping(node, deep)


Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith(("timestamp", ":float"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|\.[0-9_]+(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def files_in(text: str) -> list[str]:
    """Return the settings files of ``--config_files``: one, or several with spaces between."""
    return [text] if Path(text).is_file() else text.split()


def parse_value(text: str) -> Any:
    """Return a command-line value read as YAML; ``None`` is null, what is no YAML a string."""
    if text == "None":
        return None
    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError):  # ValueError: what looks like a number and is none
        return text


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        UserError: The file is missing, unreadable, no YAML, or no mapping of settings.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        hint = "; several files are separated by spaces" if str(path).endswith(",") else ""
        raise UserError(f"cannot read the settings file {path}: {reason}{hint}") from None
    try:
        content = yaml.load(text, Loader=Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(
            f"{path}{where}: not valid YAML ({getattr(error, 'problem', None) or error})"
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(
            f"{path}: a settings file is a mapping of 'key: value' lines, "
            f"not {type(content).__name__}"
        )
    return content


def lay_over(target: dict[str, Any], source: Mapping[str, Any]) -> None:
    """Lay ``source`` over ``target``: ``eval_args`` entry by entry, what is not dotted whole.

    Raises:
        UserError: A dotted key enters what has no entries.
    """
    for key, value in source.items():
        if "." in key:
            _set_nested(target, key, value)
        elif key == "eval_args" and isinstance(value, dict) and isinstance(target.get(key), dict):
            target[key] = {**target[key], **value}
        else:
            target[key] = value


def _set_nested(target: dict[str, Any], dotted: str, value: Any) -> None:
    *outer, last = dotted.split(".")
    place = target
    for name in outer:
        inner = place.get(name)
        if inner is not None and not isinstance(inner, dict):
            raise UserError(f"--{dotted}: '{name}' is {inner!r}, which has no entries")
        place[name] = dict(inner or {})
        place = place[name]
    place[last] = value


def joined(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that do what the layers do one after the other over any others.

    A dotted key stays one: what it is an entry of may lie below.

    Args:
        layers: Later ones stronger.
    """
    settings: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            outer = key.partition(".")[0]
            if outer == "eval_args" or outer in settings:
                lay_over(settings, {key: value})
            else:
                settings[key] = value
            if "." not in key:
                settings = {k: v for k, v in settings.items() if not k.startswith(f"{key}.")}
    return settings


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the settings of ``--key=value`` arguments.

    Raises:
        UserError: An argument has another form, or a key comes twice with different values.
    """
    settings: dict[str, Any] = {}
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue="--"):
        key, equals, text = argument[2:].partition("=")
        if not argument.startswith("--") or not equals or not key:
            raise UserError(
                f"argument '{argument}' is not understood; settings are written "
                f"{_example(argument, following)}"
            )
        value = parse_value(text)
        if isinstance(value, str) and _is_open(text.strip()):
            raise UserError(
                f"--{key} is no YAML: {text}; a bracket is not closed; a list is written [1,2], a "
                "mapping {key: value}"
            )
        if key in settings and settings[key] != value:
            raise UserError(
                f"--{key} is given twice, as {settings[key]!r} and as {value!r}; keep one"
            )
        settings[key] = value
    return settings


def _example(argument: str, following: str) -> str:
    """Return how an argument that is not understood was likely meant."""
    name, equals, value = argument.lstrip("-").partition("=")
    if not name or argument.startswith("--") == bool(equals):
        return "--key=value"
    if not equals and (not argument.startswith("--") or following.startswith("-")):
        return "--key=value"
    return f"--{name}={value if equals else following}"


def _is_open(text: str) -> bool:
    """Return whether a text begins as a list or a mapping and never ends; ``[5,inf)`` does."""
    closing = {"[": "])", "{": "}"}.get(text[:1], "")
    return bool(closing) and not any(mark in text for mark in closing)
