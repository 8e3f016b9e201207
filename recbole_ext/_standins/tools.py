"""What the repairs are made with."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from types import ModuleType
from typing import Any


def called_by_recbole() -> bool:
    """Tell whether the function that asks was called from a module of RecBole."""
    return sys._getframe(2).f_globals.get("__name__", "").startswith("recbole.")


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace ``owner.name`` by ``make(original)``, unless that was done before."""
    original = getattr(owner, name)
    if not hasattr(original, "_recbole_ext_original"):
        new: Any = wraps(original)(make(original))
        new._recbole_ext_original = original
        setattr(owner, name, new)


def copy_of(module: ModuleType, **changed: Any) -> ModuleType:
    """Return a module that has the attributes of ``module``, but for those given."""
    copy = ModuleType(module.__name__)
    copy.__getattr__ = lambda name: getattr(module, name)  # type: ignore[method-assign]
    copy.__dict__.update(changed)
    return copy


@cache
def importable(name: str) -> bool:
    """Tell whether a module can be imported, by importing it; a broken one counts as absent."""
    try:
        importlib.import_module(name)
    except Exception:
        return False
    return True


@contextmanager
def present(modules: dict[str, ModuleType]) -> Iterator[None]:
    """Put modules in ``sys.modules`` where they are absent, and take them out again."""
    added = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            sys.modules.pop(name, None)
