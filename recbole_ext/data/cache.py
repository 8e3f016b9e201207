"""The dataset cache: only when asked for (``save_dataset``), and keyed by what is in the files.

RecBole reads a cache whenever its file exists and compares settings only; ours is looked for only
under ``save_dataset`` or ``save_dataloaders``, and its key covers the files' bytes, the settings
that shape the dataset and the library versions. Loaders are never pickled: rebuilding them from the
dataset is quick, and RecBole's way of saving them takes the generators away from the live ones and
so changes results.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections.abc import Callable
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import recbole
from recbole.utils import dataset_arguments

from recbole_ext import __version__
from recbole_ext.atomic import replacing
from recbole_ext.registry import RECBOLE
from recbole_ext.settings_reading import read_yaml
from recbole_ext.types import UserError

_MARK = "recbole_ext dataset cache"


_OTHER_KEYS = ("encoding", "repeatable", "convert_token_to_onehot", "token_num_threshold")
"""Settings that RecBole's datasets read though they stand in no list and no dataset's YAML."""


def cached(config: Any, dataset_class: type, load: Callable[[], Any]) -> Any:
    """Return ``load()``, or its earlier result when the cache is on and still valid.

    Raises:
        UserError: The cache's file is damaged or something else, or cannot be written.
    """
    if not (config["save_dataset"] or config["save_dataloaders"]):
        return load()
    key = cache_key(config, dataset_class)
    path = Path(
        config["dataset_save_path"]
        or Path(config.resolved["checkpoint_dir"])
        / f"{config['dataset']}-{dataset_class.__name__}-{key[:12]}.pkl"
    )
    if path.is_file():
        stored_key, dataset = _read(path)
        if stored_key == key:
            getLogger().info("dataset taken from the cache %s", path)
            dataset.config, dataset.logger = config, getLogger()
            return dataset
    dataset = load()
    _write(path, key, dataset)
    getLogger().info("dataset kept in the cache %s", path)
    return dataset


def _read(path: Path) -> tuple[str, Any]:
    try:
        with open(path, "rb") as stream:
            mark, key, dataset = pickle.load(stream)  # noqa: S301 - ours, named by the user
        if mark != _MARK:
            raise ValueError(mark)
    except Exception as error:  # unpickling what is damaged or foreign raises whatever it likes
        raise UserError(
            f"{path} is no dataset cache of this package, or is damaged; delete it, or set "
            "dataset_save_path to another file"
        ) from error
    return key, dataset


def _write(path: Path, key: str, dataset: Any) -> None:
    bare = copy.copy(dataset)
    bare.config = bare.logger = None  # the settings of one run, which another brings itself
    with replacing(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as stream:
            pickle.dump((_MARK, key, bare), stream)


def cache_key(config: Any, dataset_class: type) -> str:
    """Return a SHA-256 over a dataset's files, settings, class and the versions that read it."""
    digest = hashlib.sha256()
    for path in sorted(Path(config["data_path"]).glob(f"{config['dataset']}.*")):
        digest.update(path.name.encode() + b"\0")
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    fields = read_yaml(RECBOLE / "properties" / "dataset" / "sample.yaml")
    names = {*dataset_arguments, *fields, *_OTHER_KEYS}
    settings = {name: config[name] for name in names}
    versions = (__version__, recbole.__version__, np.__version__, pd.__version__)
    name = (dataset_class.__module__, dataset_class.__qualname__)
    digest.update(repr((name, sorted(settings.items(), key=lambda kv: kv[0]), versions)).encode())
    return digest.hexdigest()
