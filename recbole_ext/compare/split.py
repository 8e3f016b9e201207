"""What a dataset looks like in training: how long each user's history, how popular each item is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from recbole.utils import dataset_arguments, init_seed

from recbole_ext.config import Config
from recbole_ext.data.build import create_dataset
from recbole_ext.run_folder import write_text
from recbole_ext.types import UserError

_OF_DATA = (*dataset_arguments, "data_path", "encoding", "eval_args", "seed")
"""Settings that decide what a dataset holds and how it is split, whatever the model."""


@dataclass(frozen=True)
class Split:
    """Counts of the training split, by external token.

    Attributes:
        fingerprint: The dataset's fingerprint.
        history: User -> number of interactions.
        popularity: Item -> number of interactions.
    """

    fingerprint: str
    history: dict[str, int]
    popularity: dict[str, int]


def read_split(dataset: str, settings: Mapping[str, Any]) -> Split:
    """Load a dataset, split it, and count.

    Args:
        dataset: Its name.
        settings: Those of any model; what is of the data is taken for Pop, whose training split
            has a row per interaction and no prefixes.
    """
    loaded, built = plain_splits(dataset, settings)
    history, popularity = (
        _counts(built[0].inter_feat[field].numpy(), loaded.field2id_token[field])
        for field in (loaded.uid_field, loaded.iid_field)
    )
    return Split(loaded.fingerprint, history, popularity)


def plain_splits(dataset: str, settings: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    """Return a dataset, and its splits with a row per interaction; as for :func:`read_split`."""
    config = plain_config(dataset, settings)
    init_seed(config["seed"], config["reproducibility"])  # a random split is drawn as a run's is
    loaded = create_dataset(config)
    return loaded, loaded.build()


def plain_config(dataset: str, settings: Mapping[str, Any]) -> Config:
    """Return what of some settings is of the data, as Pop's."""
    return Config("Pop", dataset, None, of_data(settings))


def of_data(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of some settings decides what a dataset holds and how it is split."""
    return {key: settings[key] for key in _OF_DATA if key in settings}


def how_split(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of some settings decides which interactions are held out.

    The fingerprint of a dataset is of all its interactions: it is the same for every split of them.
    """
    given = settings.get("eval_args") or {}
    args = {key: value for key, value in sorted(given.items()) if key != "mode"}
    return {**args, "seed": settings.get("seed")} if args.get("order") == "RO" else args


def _counts(ids: np.ndarray, tokens: np.ndarray) -> dict[str, int]:
    counts = np.bincount(ids, minlength=len(tokens))  # [U or N]
    return {str(tokens[i]): int(counts[i]) for i in range(1, len(tokens))}  # 0 is padding


def write_split(path: Path, split: Split) -> None:
    """Write a split as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(vars(split)) + "\n")


def load_split(path: Path) -> Split | None:
    """Return what :func:`write_split` wrote, or ``None`` where there is none.

    Raises:
        UserError: The file is damaged.
    """
    if not path.is_file():
        return None
    try:
        found = Split(**json.loads(path.read_text(encoding="utf-8")))
        if isinstance(found.history, dict) and isinstance(found.popularity, dict):
            return found
    except (OSError, ValueError, TypeError):
        pass
    raise UserError(
        f"{path} is damaged, so nothing is shown by history length and item popularity; give "
        "the comparison's command once more, which writes it anew"
    )
