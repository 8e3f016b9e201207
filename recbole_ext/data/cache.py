"""The dataset cache: only when asked for (``save_dataset``), and keyed by what is in the files.

RecBole reads a cache whenever its file exists and compares settings only; ours is looked for only
under ``save_dataset`` or ``save_dataloaders``, and its key covers the files' bytes, the settings
that shape the dataset and the library versions. Loaders are never pickled: rebuilding them from the
dataset is quick, and RecBole's way of saving them takes the generators away from the live ones and
so changes results.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import recbole
from recbole.utils import dataset_arguments


def cached(config: Any, class_name: str, load: Callable[[], Any]) -> Any:
    """Return ``load()``, or its earlier result when the cache is on and still valid."""
    if not (config["save_dataset"] or config["save_dataloaders"]):
        return load()
    key = cache_key(config, class_name)
    path = Path(
        config["dataset_save_path"]
        or Path(config.resolved["checkpoint_dir"])
        / f"{config['dataset']}-{class_name}-{key[:12]}.pkl"
    )
    if path.is_file():
        with open(path, "rb") as stream:
            stored_key, dataset = pickle.load(stream)  # noqa: S301 - our own file, named by the user
        if stored_key == key:
            getLogger().info("dataset taken from the cache %s", path)
            dataset.config = config
            return dataset
    dataset = load()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as stream:
        pickle.dump((key, dataset), stream)
    os.replace(temporary, path)
    getLogger().info("dataset kept in the cache %s", path)
    return dataset


def cache_key(config: Any, class_name: str) -> str:
    """Return a SHA-256 over a dataset's files, settings, class and the versions that read it."""
    digest = hashlib.sha256()
    for path in sorted(Path(config["data_path"]).glob(f"{config['dataset']}.*")):
        digest.update(path.name.encode() + b"\0")
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    settings = {
        name: config[name]
        for name in [*dataset_arguments, "repeatable", "numerical_features", "discretization"]
    }
    versions = (recbole.__version__, np.__version__, pd.__version__)
    digest.update(
        repr((class_name, sorted(settings.items(), key=lambda kv: kv[0]), versions)).encode()
    )
    return digest.hexdigest()
