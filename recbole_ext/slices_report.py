"""What ``slices`` prints: a run's test by parts, without running anything again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from recbole_ext.compare.item_slices import features_of, item_slices
from recbole_ext.compare.split import read_split
from recbole_ext.config import Config
from recbole_ext.evaluation.slices import COLD, slice_metrics
from recbole_ext.types import UserError, suggest


def slices_of(folder: Path, cold: int = COLD) -> str:
    """Return the metrics of a run on cold and warm items, and by what its features cover.

    Args:
        folder: Run folder.
        cold: Items with fewer training interactions are cold.

    Raises:
        UserError: The folder has no ranks, or the data are no longer those of the run.
    """
    path = folder / "per_user.parquet"
    if not (folder / "config.yaml").is_file():
        what = "holds no run (no config.yaml)" if folder.is_dir() else "is no folder"
        above = folder.parent
        near = above.iterdir() if above.is_dir() else ()
        there = [str(one) for one in near if one.is_dir() and one != folder]
        raise UserError(
            f"--run={folder} {what}{suggest(str(folder), there)}; name the folder of a finished run"
        )
    if not path.is_file():
        raise UserError(
            f"--run={folder}: the run is not finished, and has no ranks (per_user.parquet); finish "
            f"it with recbole-ext run --resume={folder}"
        )
    config = Config(config_file_list=[folder / "config.yaml"])
    ranks = pd.read_parquet(path)
    counts = read_split(config["dataset"], config.resolved).popularity
    items = ranks[config["ITEM_ID_FIELD"]].astype(str)
    if not items.isin(counts.keys()).all():
        raise UserError(f"{folder} is of other data than those of '{config['dataset']}' now")
    slices = item_slices(items, counts, features_of(config.resolved), config, cold)
    table = slice_metrics(ranks["rank"].to_numpy(), slices, config["topk"])
    table["n"] = table["n"].astype(int)
    return table.to_string(float_format=lambda value: f"{value:.4f}", na_rep="-")
