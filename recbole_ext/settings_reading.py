"""Settings as users write them: YAML files, and ``--key=value`` with values that are YAML."""

from __future__ import annotations

import re
from collections.abc import Sequence
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


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the settings of ``--key=value`` arguments.

    Raises:
        UserError: An argument has another form, or a key comes twice with different values.
    """
    settings: dict[str, Any] = {}
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue="--"):
        key, equals, text = argument[2:].partition("=")
        if not argument.startswith("--") or not equals or not key:
            is_spaced = key and not following.startswith("--")
            example = f"--{key}={following}" if is_spaced else "--key=value"
            raise UserError(
                f"argument '{argument}' is not understood; settings are written {example}"
            )
        value = parse_value(text)
        is_open = text.strip()[:1] in ("[", "{") and text.strip()[-1:] not in (")", "]", "}")
        if isinstance(value, str) and is_open:  # '[5,inf)' is an interval
            raise UserError(
                f"--{key} is no YAML: {text}; a list is written [1,2], a mapping {{key: value}}, "
                "and in quotes where the shell would take it apart"
            )
        if key in settings and settings[key] != value:
            raise UserError(
                f"--{key} is given twice, as {settings[key]!r} and as {value!r}; keep one"
            )
        settings[key] = value
    return settings
