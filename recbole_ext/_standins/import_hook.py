"""Runs code around and after the first execution of chosen modules, without importing them early.

A repair must reach a module before the modules that copy names out of it, and must not cost an
import of RecBole (and with it of torch, pandas and scikit-learn) to a command that only prints its
help.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Around = Callable[[ModuleType], AbstractContextManager[None]]
"""Given the module that is about to be executed, the context in which that happens."""


class ImportHook:
    """A finder, first on ``sys.meta_path``, that lets the others find and wraps the execution.

    Args:
        modules: Full names of the modules to watch.
        around: Entered before such a module is executed and left after it.
    """

    def __init__(self, modules: set[str], around: Around) -> None:
        self.modules = modules
        self.around = around

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of the other finders, its loader wrapped; ``None`` if not watched."""
        if name not in self.modules:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = None if finder is self or find is None else find(name, path, target)
            if spec is not None and spec.loader is not None:
                self._wrap(spec.loader)
                return spec
        return None

    def _wrap(self, loader: Any) -> None:
        """Replace ``exec_module`` on this one loader; every import makes a loader of its own."""
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            with self.around(module):
                execute(module)

        loader.exec_module = exec_module
