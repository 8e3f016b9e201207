"""Finds ``properties/`` and ``dataset_configs/``, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from recbole_ext.types import UserError

PACKAGE = Path(__file__).resolve().parent
"""Folder of the package."""


def data_folder(name: str) -> Path:
    """Return the folder ``properties`` or ``dataset_configs``.

    A wheel carries both inside the package (``package_dir`` in setup.cfg); a checkout has them
    beside it.

    Raises:
        UserError: Neither place has the folder.
    """
    for place in (PACKAGE / name, PACKAGE.parent / name):
        if place.is_dir():
            return place
    raise UserError(
        f"the folder '{name}' of recbole_ext was found neither in {PACKAGE} nor beside it; "
        "reinstall with: pip install --force-reinstall recbole-ext"
    )


def model_yaml(model: str) -> Path | None:
    """Return ``properties/model/<model>.yaml``, or ``None``."""
    path = data_folder("properties") / "model" / f"{model}.yaml"
    return path if path.is_file() else None


def family_yaml(family: str) -> Path | None:
    """Return ``properties/family/<family>.yaml``, or ``None``."""
    path = data_folder("properties") / "family" / f"{family}.yaml"
    return path if path.is_file() else None


def dataset_yaml(dataset: str) -> Path | None:
    """Return ``dataset_configs/<dataset>.yaml``, or ``None``."""
    path = data_folder("dataset_configs") / f"{dataset}.yaml"
    return path if path.is_file() else None


def reranker_yaml(name: str) -> Path:
    """Return ``properties/reranker/<name>.yaml``, which every reranker has."""
    return data_folder("properties") / "reranker" / f"{name}.yaml"
