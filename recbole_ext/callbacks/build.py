"""From YAML to callbacks: by file name, imported alone, checked before anything runs.

``recbole_ext/callbacks/<name in snake_case>.py`` holds the callback of that name: adding a file
adds a callback. One of the user's own is named by its path, ``my_pkg.my_module:MyCallback``.
"""

from __future__ import annotations

import copy
import importlib
import re
from pathlib import Path
from typing import Any

from recbole_ext.callbacks.arguments import check_arguments
from recbole_ext.callbacks.base import Callback
from recbole_ext.types import UserError, suggest


def build_callbacks(specs: list[Any] | None) -> list[Callback]:
    """Build the callbacks of a configuration, in its order.

    Args:
        specs: The value of the key ``callbacks``: a list of ``Name`` or ``Name: {arguments}``.

    Raises:
        UserError: A form, name, argument or type that is wrong; it names the near ones.
    """
    if specs is None:
        return []
    if not isinstance(specs, list):
        raise UserError(
            f"callbacks takes a list, one '- Name: {{arguments}}' per line, not {specs!r}"
        )
    callbacks = [_build(spec) for spec in specs]
    _check_phases(callbacks)
    return callbacks


def known_callbacks() -> dict[str, str]:
    """Return the package's callbacks, class name -> module, without importing any."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        source = path.read_text(encoding="utf-8")
        for name in re.findall(r"^class (\w+)\(Callback\)", source, re.MULTILINE):
            if snake_case(name) == path.stem:
                found[name] = f"{__package__}.{path.stem}"
    return found


def find_callback(name: str) -> type[Callback]:
    """Return the class of a callback, ours by name or the user's own by ``module:Class``.

    Raises:
        UserError: There is no such callback, or what the path names is none.
    """
    if ":" in name:
        return _import_path(name)
    known = known_callbacks()
    if name not in known:
        raise UserError(
            f"unknown callback '{name}'{suggest(name, known)} (there are: {', '.join(known)}; "
            "one of your own is written my_package.my_module:MyCallback)"
        )
    return getattr(importlib.import_module(known[name]), name)


def snake_case(name: str) -> str:
    """Return ``FaissRefresh`` as ``faiss_refresh``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _check_phases(callbacks: list[Callback]) -> None:
    """Refuse a callback of a phase that does not come: it would never act, without a word."""
    stages = [name for callback in callbacks for name in callback.stages]
    for callback in callbacks:
        wanted = callback.in_phase
        if wanted is not None and wanted not in stages:
            there = f"there are {', '.join(stages)}" if stages else "list Alternate, with phases"
            raise UserError(
                f"{type(callback).__name__}: there is no phase '{wanted}'"
                f"{suggest(wanted, stages)} ({there})"
            )


def _build(spec: Any) -> Callback:
    if isinstance(spec, str):
        spec = {spec: None}
    if not isinstance(spec, dict) or len(spec) != 1 or not isinstance(next(iter(spec)), str):
        raise UserError(
            "callbacks: each entry is 'Name' or one 'Name: {argument: value}' with its arguments "
            f"indented below it, not {spec!r}"
        )
    name, arguments = next(iter(spec.items()))
    if not isinstance(arguments, (dict, type(None))):
        raise UserError(f"callbacks: {name} takes arguments by name, not {arguments!r}")
    callback = find_callback(name)
    check_arguments(name, callback, arguments or {})
    # A copy: the configuration is written to the run folder as the user gave it.
    return callback(**copy.deepcopy(arguments or {}))


def _import_path(name: str) -> type[Callback]:
    place, _, attribute = name.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", place):
        raise UserError(f"callback '{name}': write it as my_package.my_module:MyCallback")
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise UserError(
            f"callback '{name}': cannot import '{error.name}'; is its folder on PYTHONPATH?"
        ) from error
    found = getattr(module, attribute, None)
    if found is None:
        raise UserError(
            f"callback '{name}': module '{place}' has no class '{attribute}'"
            f"{suggest(attribute, vars(module))}"
        )
    if not (isinstance(found, type) and issubclass(found, Callback)):
        raise UserError(f"callback '{name}' is no subclass of recbole_ext.callbacks.base.Callback")
    return found
