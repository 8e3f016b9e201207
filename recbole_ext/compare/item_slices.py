"""The positives of a test by what is known of their items: interactions, and stored features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_ext.data.features import feature_folder
from recbole_ext.evaluation.slices import COLD, by_count
from recbole_ext.features.store import FeatureStore


def features_of(settings: Mapping[str, Any]) -> list[str]:
    """Return the features of the items that the settings of a run name.

    Their name is that of their folder, and all of them are of the items: ``user_feature`` is not.
    """
    names = [settings.get("text_feature"), settings.get("image_feature")]
    names.append((settings.get("item_init") or {}).get("feature"))
    return [str(name) for name in dict.fromkeys(names) if name]


def by_feature(items: pd.Series, names: Iterable[str], settings: Any) -> dict[str, np.ndarray]:
    """Return the slices of items with a feature and without it.

    Args:
        items: Item of each positive [P], as tokens.
        names: Features.
        settings: Those of a run, which say where the features lie.

    Returns:
        Name of the slice -> which positives [P].

    Raises:
        UserError: A feature is not there, or is damaged.
    """
    slices: dict[str, np.ndarray] = {}
    for name in names:
        rows = FeatureStore(feature_folder(settings, name)).rows
        covered = items.isin(rows["token"][rows["present"]]).to_numpy()  # [P]
        slices |= {f"with {Path(name).name}": covered, f"without {Path(name).name}": ~covered}
    return slices


def item_slices(
    items: pd.Series,
    popularity: Mapping[str, int],
    names: Iterable[str],
    settings: Any,
    cold: int = COLD,
) -> dict[str, np.ndarray]:
    """Return all positives, then those of cold and warm items, then those by feature.

    Args:
        items: Item of each positive [P], as tokens.
        popularity: Item -> training interactions.
        names: Features.
        settings: Those of a run.
        cold: Items with fewer training interactions are cold.

    Raises:
        UserError: A feature is not there, or is damaged.
    """
    counts = items.map(popularity).fillna(0).to_numpy()  # [P]
    everything = {"all": np.ones(len(items), dtype=bool)}
    return everything | by_count(counts, cold) | by_feature(items, names, settings)
