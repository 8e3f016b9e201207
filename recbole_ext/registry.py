"""From a model's name to its class: ours by file name, imported alone; else RecBole's.

``recbole_ext/models/<family>/<name in lower case>.py`` holds the class of that name: adding a file
adds a model. A model outside the package is named by its path, ``my_package.my_module:MyModel``.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import recbole
from recbole.utils import get_trainer as recbole_trainer

from recbole_ext.paths import PACKAGE
from recbole_ext.types import UserError, suggest

RECBOLE = Path(recbole.__file__).resolve().parent
EXTRA_OF = {"XGBoost": "xgboost", "LightGBM": "lightgbm", "NCL": "faiss-cpu"}
"""Built-in models that need a package which RecBole does not declare."""

ACCELERATED = (
    "SASRec",
    "SASRecF",
    "FDSA",
    "GCSAN",
    "CORE",
    "GRU4Rec",
    "GRU4RecF",
    "NARM",
    "STAMP",
    "SRGNN",
    "BERT4Rec",
    "S3Rec",
    "LightSANs",
)
"""RecBole's models that may be accelerated: those that ``tests/models/test_accelerate.py`` holds
against RecBole's. ``models/accelerate.py`` says what is done to each."""


def extension_models() -> dict[str, Path]:
    """Return our models, class name -> file."""
    return _classes_by_file(PACKAGE / "models", "*/[a-z]*.py")


def builtin_models() -> dict[str, Path]:
    """Return RecBole's models, class name -> file, without importing any."""
    return _classes_by_file(RECBOLE / "model", "*_recommender/[a-z]*.py")


def family_of(model_class: type) -> str | None:
    """Return a model's family: the folder of its file, or its ``family`` attribute."""
    parts = model_class.__module__.split(".")
    if parts[:2] == ["recbole_ext", "models"] and len(parts) == 4:
        return parts[2]
    return getattr(model_class, "family", None)


def get_model(name: str) -> type:
    """Return the class of a model.

    Args:
        name: Class name of one of our models or of RecBole's, or ``module:Class``.

    Raises:
        UserError: No such model (with near names), or a package that it needs is missing.
    """
    if ":" in name:
        return _import_path(name)
    ours = extension_models()
    if name in ours:
        family = ours[name].parent.name
        return getattr(
            importlib.import_module(f"recbole_ext.models.{family}.{ours[name].stem}"), name
        )
    theirs = builtin_models()
    if name not in theirs:
        raise UserError(
            f"unknown model '{name}'{suggest(name, [*ours, *theirs])}; "
            "a model of your own is given as --model=my_package.my_module:MyModel"
        )
    path = theirs[name]
    try:
        module = importlib.import_module(f"recbole.model.{path.parent.name}.{path.stem}")
    except ImportError as error:
        package = EXTRA_OF.get(name, error.name or "a package")
        raise UserError(
            f"model {name} needs '{package}', which is not installed; run: pip install {package}"
        ) from error
    return getattr(module, name)


def add_metrics() -> None:
    """Put our metrics into RecBole's registry; by name, as models, for their layer is above."""
    importlib.import_module("recbole_ext.evaluation.impression_metrics").add()


def get_trainer(model_type: object, name: str) -> type:
    """Return RecBole's trainer class of a model: by name where RecBole has one, else by type."""
    return recbole_trainer(model_type, name)


def is_accelerated(settings: Mapping[str, Any], model_class: type) -> bool:
    """Return whether ``accelerate`` is set, for a model that it is meant for.

    These are our own models and :data:`ACCELERATED`; a class derived from one of RecBole's may read
    what is left out.

    Raises:
        UserError: It is set, and the model is another.
    """
    if not settings["accelerate"]:
        return False
    if not (is_ours(model_class) or can_accelerate(model_class)):
        raise UserError(
            f"accelerate: {model_class.__name__} of {model_class.__module__} is not among the "
            f"models of RecBole that it is tested for ({', '.join(ACCELERATED)}); leave it out"
        )
    return True


def is_ours(model_class: type) -> bool:
    """Return whether a class derives from ``ExtRecommender``."""
    # by its module: that layer is above this one
    return any(base.__module__ == "recbole_ext.models.base" for base in model_class.__mro__)


def can_accelerate(model_class: type) -> bool:
    """Return whether a class is one of :data:`ACCELERATED` itself, not derived from it."""
    is_theirs = model_class.__module__.startswith("recbole.model.")
    return is_theirs and model_class.__name__ in ACCELERATED


def check_model(found: object, name: str) -> type:
    """Return ``found`` if it is a model class as RecBole knows them.

    Raises:
        UserError: It is something else.
    """
    if not (isinstance(found, type) and hasattr(found, "type") and hasattr(found, "predict")):
        raise UserError(
            f"'{name}' is no RecBole model: a class with 'type', 'predict' and 'calculate_loss'"
        )
    return found


def _import_path(name: str) -> type:
    module, _, attribute = name.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*", module) or not attribute.isidentifier():
        raise UserError(
            f"model '{name}': a model of your own is written my_package.my_module:MyModel"
        )
    if os.getcwd() not in sys.path:  # an installed command does not look where it is called
        sys.path.append(os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"model '{name}': cannot import '{error.name}'; is its folder on PYTHONPATH?"
        ) from error
    if not hasattr(found, attribute):
        raise UserError(
            f"model '{name}': module '{module}' has no class '{attribute}'"
            f"{suggest(attribute, vars(found))}"
        )
    return check_model(getattr(found, attribute), name)


def _classes_by_file(root: Path, pattern: str) -> dict[str, Path]:
    """Find in every file the class whose name in lower case is the file's, as RecBole does."""
    found = {}
    for path in sorted(root.glob(pattern)):
        for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            if name.lower() == path.stem:
                found[name] = path
    return found
