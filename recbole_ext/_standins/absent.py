"""Repairs for packages that RecBole imports and that are absent or do not import.

B1, B2, B10 to B12 and B14. A stand-in is in ``sys.modules`` only while the code that wants it runs:
other libraries probe for the same packages.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from recbole_ext._standins.tools import copy_of, importable, present, replace

KNOWLEDGE = "recbole.model.knowledge_aware_recommender"
DGL_CALLERS = {
    "recbole.data.dataset.dataset": "Dataset._create_graph",
    "recbole.data.dataset.kg_dataset": "KnowledgeBasedDataset._create_ckg_graph",
    f"{KNOWLEDGE}.kgat": "KGAT.init_graph",
}
"""Module of RecBole -> ``Class.function`` that imports dgl when called."""
SCATTER_CALLERS = {
    f"{KNOWLEDGE}.kgin": "Aggregator.forward",
    f"{KNOWLEDGE}.mcclk": "Aggregator.forward",
}
"""The same for torch_scatter."""


def ray_is_not_in_use() -> bool:
    """Tell whether the process has not imported the real ray."""
    return "ray" not in sys.modules


@contextmanager
def without_ray() -> Iterator[None]:
    """Give `recbole.quick_start` a `ray.tune` with the one function that it uses."""
    ray, tune = ModuleType("ray"), ModuleType("ray.tune")
    tune.report = lambda *args, **metrics: None  # type: ignore[attr-defined]
    ray.tune = tune  # type: ignore[attr-defined]
    with present({"ray": ray, "ray.tune": tune}):
        yield


def in_presence_of(name: str, callers: dict[str, str]) -> Callable[[ModuleType], None]:
    """Return a repair that gives some functions of RecBole our stand-in for a package.

    The real one comes first: the stand-in is used when the package is absent or does not import.

    Args:
        name: The package, and the module of ``recbole_ext._standins`` that stands in for it.
        callers: Module of RecBole -> ``Class.function`` that imports the package when called.
    """

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def with_stand_in(*args: Any, **kwargs: Any) -> Any:
            if importable(name):
                return original(*args, **kwargs)
            stand_in = importlib.import_module(f"recbole_ext._standins.{name}")
            with present({name: stand_in}):
                return original(*args, **kwargs)

        return with_stand_in

    def after(module: ModuleType) -> None:
        owner, function = callers[module.__name__].split(".")
        replace(getattr(module, owner), function, make)

    return after


def lacks_pkg_resources() -> bool:
    """Tell whether setuptools no longer brings `pkg_resources` (setuptools >= 82)."""
    return not importable("pkg_resources")


@contextmanager
def with_pkg_resources() -> Iterator[None]:
    """Let `hyperopt.atpe` import; it needs the package in a search that RecBole never starts."""
    with present({"pkg_resources": ModuleType("pkg_resources")}):
        yield


def give_integers(module: ModuleType) -> None:
    """Give the random state of the exhaustive search the method that hyperopt >= 0.2.6 calls."""
    import numpy as np

    class RandomState(np.random.RandomState):
        """Answers to both names of the one method, so that it serves every version of hyperopt."""

        def integers(self, *args: Any, **kwargs: Any) -> Any:
            return self.randint(*args, **kwargs)

    module.np = copy_of(np, random=copy_of(np.random, RandomState=RandomState))  # type: ignore[attr-defined]


def lacks_distutils() -> bool:
    """Tell whether `distutils` is gone (Python >= 3.12 without setuptools)."""
    return not importable("distutils.version")


class LooseVersion:
    """Compares the numbers of two versions, which is all that thop does with it."""

    def __init__(self, text: str) -> None:
        self.numbers = [int(part) for part in text.split("+")[0].split(".") if part.isdigit()]

    def __lt__(self, other: LooseVersion) -> bool:
        return self.numbers < other.numbers

    def __ge__(self, other: LooseVersion) -> bool:
        return self.numbers >= other.numbers


@contextmanager
def with_distutils() -> Iterator[None]:
    """Let thop, which counts operations for RecBole's own quick start, import."""
    distutils, version = ModuleType("distutils"), ModuleType("distutils.version")
    version.LooseVersion = LooseVersion  # type: ignore[attr-defined]
    distutils.version = version  # type: ignore[attr-defined]
    with present({"distutils": distutils, "distutils.version": version}):
        yield
