"""Formats by family: each is a file of :mod:`recbole_ext.data.convert.formats`."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path

from recbole_ext.data.convert import formats
from recbole_ext.data.convert.raw import RawFormat
from recbole_ext.types import UserError


def families() -> dict[str, list[str]]:
    """Return family -> names of its modules: ``amazon`` has ``amazon_2014`` and others."""
    found: dict[str, list[str]] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(formats.__path__)):
        found.setdefault(module.partition("_")[0], []).append(module)
    return found


def find_raw(family: str, source: Path) -> RawFormat:
    """Return the raw files of a family in a folder.

    Args:
        family: As ``amazon``.
        source: The folder, or a file of interactions in it, where it has several.

    Raises:
        UserError: There are no such files, or there are several sets.
    """
    if not source.exists():
        raise UserError(f"--source: there is no folder {source}; name the one with the raw files")
    modules = families()[family]
    kinds = [import_module(f"{formats.__name__}.{module}").Format for module in modules]
    try:
        found: list[RawFormat] = [raw for kind in kinds for raw in kind.find(source)]
    except OSError as error:
        raise UserError(
            f"--source: cannot read {source}: {error.strerror}; is it yours to read?"
        ) from None
    if not found:
        hint = "; name the folder, or a file of interactions in it" if source.is_file() else ""
        wanted = "; ".join(f"{kind.looked_for} of {kind.name}" for kind in kinds)
        raise UserError(
            f"{source} has no files of {family} that are known by their names and first lines; "
            f"looked for: {wanted}{hint}"
        )
    if len(found) > 1:
        sets = ", ".join(f"{raw.interactions[0].name} ({raw.name})" for raw in found)
        raise UserError(
            f"{source} has {len(found)} sets of interactions, {sets}, and one is meant; name its "
            f"file, as in --source={found[0].interactions[0]}"
        )
    return found[0]
