"""What ``slices`` prints: a run's test by parts, without running anything again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_ext.compare.split import read_split
from recbole_ext.config import Config
from recbole_ext.data.features import feature_folder
from recbole_ext.evaluation.slices import COLD, by_count, slice_metrics
from recbole_ext.features.store import FeatureStore
from recbole_ext.types import UserError


def slices_of(folder: Path, cold: int = COLD) -> str:
    """Return the metrics of a run on cold and warm items, and by what its features cover.

    Args:
        folder: Run folder.
        cold: Items with fewer training interactions are cold.

    Raises:
        UserError: The folder has no ranks, or the data are no longer those of the run.
    """
    path = folder / "per_user.parquet"
    if not (folder / "config.yaml").is_file() or not path.is_file():
        raise UserError(f"{folder} has no ranks (per_user.parquet) of a finished run")
    config = Config(config_file_list=[folder / "config.yaml"])
    ranks = pd.read_parquet(path)
    counts = read_split(config["dataset"], config.resolved).popularity
    items = ranks[config["ITEM_ID_FIELD"]].astype(str)
    if not items.isin(counts.keys()).all():
        raise UserError(f"{folder} is of other data than those of '{config['dataset']}' now")
    slices = {"all": np.ones(len(ranks), dtype=bool)}
    slices |= by_count(items.map(counts).to_numpy(), cold)
    for name in _features(config):
        rows = FeatureStore(feature_folder(config, name)).rows
        covered = items.isin(rows["token"][rows["present"]]).to_numpy()  # [P]
        slices |= {f"with {Path(name).name}": covered, f"without {Path(name).name}": ~covered}
    table = slice_metrics(ranks["rank"].to_numpy(), slices, config["topk"])
    table["n"] = table["n"].astype(int)
    return table.to_string(float_format=lambda value: f"{value:.4f}", na_rep="-")


def _features(config: Any) -> list[str]:
    """Return the features of the items that a run's settings name."""
    settings = config.resolved
    names = [settings.get("text_feature"), settings.get("image_feature")]
    names.append((settings.get("item_init") or {}).get("feature"))
    return [str(name) for name in dict.fromkeys(names) if name]
