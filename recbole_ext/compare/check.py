"""Refuses what a run of a comparison would be refused for by its data, before any of them runs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole_ext.config import Config
from recbole_ext.data.check import check_topk
from recbole_ext.quick_start import Run
from recbole_ext.types import UserError

Wanted = dict[str, Any]
"""``name``, ``model``, ``settings`` and ``overrides`` of one run."""


def configs_of(dataset: str, wanted: Iterable[Wanted]) -> dict[str, Config]:
    """Return name -> Config of the runs on a dataset."""
    return {
        one["name"]: Config(one["model"], dataset, None, one["settings"], one["overrides"])
        for one in wanted
    }


def check_wanted(configs: Mapping[str, Config], n_items: int) -> None:
    """Check the settings of a comparison's runs on a dataset against its data.

    Args:
        configs: Name -> Config. They have one split, so that a model's training rows, which some
            settings depend on, are read for the first run of each model only.
        n_items: Items of the dataset.

    Raises:
        UserError: Naming the run and what is wrong with its settings.
    """
    train_rows: dict[str, Any] = {}
    for name, config in configs.items():
        check = getattr(config.model_class, "check_settings", None)
        try:
            check_topk(config, n_items)
            if check is not None:
                if config.model_path not in train_rows:
                    train_rows[config.model_path] = _train_rows(config)
                check(config, train_rows[config.model_path])
        except UserError as error:
            raise UserError(f"{name}: {error}") from None


def _train_rows(config: Config) -> Any:
    with tempfile.TemporaryDirectory() as place:
        run = Run(config, Path(place), log=False)
        run.load_data()
    return run.train_data._dataset
