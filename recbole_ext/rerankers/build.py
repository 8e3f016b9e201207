"""From a reranker's name to the reranker: found by its file name, imported when it is wanted."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

from recbole_ext.paths import PACKAGE, reranker_yaml
from recbole_ext.rerankers.base import Corpus, Reranker
from recbole_ext.settings_check import check_types, typed_comments
from recbole_ext.settings_reading import lay_over, read_yaml
from recbole_ext.types import UserError, suggest

_CLASS = re.compile(r"^class (\w+)Reranker\b", re.MULTILINE)


def reranker_files() -> dict[str, str]:
    """Return name -> class: of each file whose name, without underscores, is its class's."""
    found = {}
    for path in sorted((PACKAGE / "rerankers").glob("[a-z]*.py")):
        for name in _CLASS.findall(path.read_text(encoding="utf-8")):
            if name.lower() == path.stem.replace("_", ""):
                found[path.stem] = f"{name}Reranker"
    return found


def find_reranker(name: str) -> type[Reranker]:
    """Return the class of a reranker; what stands behind a colon is not looked at.

    Raises:
        UserError: There is none of that name.
    """
    name = name.partition(":")[0]
    files = reranker_files()
    if name not in files:
        hint = suggest(name, files) or f"; there are {', '.join(files)}"
        raise UserError(f"there is no reranker '{name}'{hint}")
    module = importlib.import_module(f"recbole_ext.rerankers.{name}")
    return getattr(module, files[name])


def settings_of(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a reranker's settings: those of its YAML, with what is given laid over.

    Args:
        name: As ``cross_encoder``, or ``cross_encoder:<model>``, which sets its main setting.
        given: Key -> value; a dotted key sets one entry of a mapping.

    Raises:
        UserError: A key that the YAML does not have, or a value of another type.
    """
    name, colon, value = name.partition(":")
    argument = find_reranker(name).argument
    path = reranker_yaml(name)
    settings = read_yaml(path)
    for key in (key.partition(".")[0] for key in given):
        if key not in settings:
            hint = suggest(key, settings) or f" (it has: {', '.join(settings) or 'none'})"
            raise UserError(f"reranker {name} has no setting '{key}'{hint}")
    if colon:
        if argument is None:
            raise UserError(f"reranker {name} takes nothing behind a colon, not '{value}'")
        if not value or given.get(argument, value) != value:
            raise UserError(
                f"reranker {name}: write {name}:<{argument}>, or --{argument}=<{argument}> once"
            )
        given = {**given, argument: value}
    defaults = dict(settings)
    lay_over(settings, given)
    check_types(settings, typed_comments([path]), defaults)
    return settings


def build_reranker(
    name: str, given: Mapping[str, Any], corpus: Corpus, seed: int = 2020
) -> Reranker:
    """Return a reranker.

    Args:
        name: As for :func:`settings_of`.
        given: Settings by key.
        corpus: The data.
        seed: Of whatever it draws.

    Raises:
        UserError: The name or a setting is not known.
    """
    return find_reranker(name)({**settings_of(name, given), "seed": seed}, corpus)
