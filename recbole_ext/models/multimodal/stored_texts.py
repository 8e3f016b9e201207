"""The texts of users, and which rows may see them: a text must not know what it is to predict."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_ext.data.features import feature_folder, load_feature
from recbole_ext.features.manifest import Manifest, read_manifest
from recbole_ext.features.store import Aligned
from recbole_ext.modules.cutoffs import usable
from recbole_ext.modules.feature_source import FeatureSource
from recbole_ext.types import UserError


def open_user_texts(config: Any, dataset: Any, name: str) -> tuple[FeatureSource, Tensor]:
    """Open a stored feature of the users, with the time up to which each text was written.

    Args:
        config: The run's settings.
        dataset: RecBole dataset.
        name: Of the feature.

    Returns:
        The vectors, and the cut-off of each user [U], in the unit of ``TIME_FIELD``; NaN where
        there is no text; -inf where nobody knows when it was written and that is let pass
        (``user_feature_may_leak``).

    Raises:
        UserError: The feature is not there, or it records no cut-off, or the times of the dataset
            are scaled, so that they cannot be compared with it.
    """
    aligned = load_feature(config, dataset, name, of="user")
    time_field = config["TIME_FIELD"]
    if config["normalize_all"] or time_field in (config["normalize_field"] or []):
        raise UserError(
            f"user_feature '{name}' may be used for what comes after its cut-off, and "
            f"'{time_field}' is scaled to [0, 1], which is another unit; set normalize_all: False "
            f"and leave '{time_field}' out of normalize_field"
        )
    manifest = read_manifest(feature_folder(config, name))
    may_leak = bool(config["user_feature_may_leak"])
    cutoffs = torch.from_numpy(cutoffs_of(aligned, manifest, may_leak))  # [U]
    rows = dataset.inter_feat
    if time_field in rows:
        _check(cutoffs, rows[time_field], rows[dataset.uid_field], name)
    return FeatureSource(aligned), cutoffs


def _check(cutoffs: Tensor, times: Tensor, users: Tensor, name: str) -> None:
    """Refuse cut-offs [U] of another unit than the training times [R]; warn of texts for no row."""
    latest, first = float(cutoffs.nan_to_num(-math.inf, neginf=-math.inf).max()), float(times.min())
    if math.isfinite(latest) and latest < first:
        raise UserError(
            f"user_feature '{name}': its latest cut-off is {latest:g}, before the first "
            f"interaction ({first:g}): are they of one unit? build it anew"
        )
    if not usable(cutoffs, times, users).any():
        logging.getLogger().warning(
            "user_feature '%s': no training row comes after its user's cut-off, so nothing is "
            "learned about these texts; write them from a smaller part of the history (features "
            "profile --share=0.5)",
            name,
        )


def cutoffs_of(aligned: Aligned, manifest: Manifest, may_leak: bool = False) -> np.ndarray:
    """Return the time up to which interactions went into the text of each user [U].

    Its row says it; where no row does, the manifest may for all.

    Args:
        aligned: The feature by internal id.
        manifest: Of the feature.
        may_leak: Take texts of which nothing says it all the same: from before all times, -inf.

    Raises:
        UserError: Nothing says it.
    """
    is_known = aligned.cutoffs is not None or manifest.cutoff is not None
    if is_known and may_leak:
        logging.getLogger().warning(
            "user_feature_may_leak does nothing: '%s' has cut-offs, and they hold", manifest.name
        )
    if aligned.cutoffs is not None:
        return aligned.cutoffs
    if manifest.cutoff is not None:
        return np.where(aligned.present, manifest.cutoff, np.nan)
    if not may_leak:
        raise UserError(
            f"user_feature '{manifest.name}' does not say up to which time its texts were written, "
            "so that any may contain what is to be predicted; build it with a cut-off (features "
            "text --cutoff=...), name no user_feature, or take it all the same with "
            "user_feature_may_leak: True"
        )
    logging.getLogger().warning(
        "user_feature '%s' may leak: nothing says when its texts were written, and every row sees "
        "them (user_feature_may_leak); results with it prove nothing",
        manifest.name,
    )
    return np.where(aligned.present, -np.inf, np.nan)


def usable_in(
    batch: Any, cutoffs: Tensor, user_field: str, time_field: str, *, is_training: bool
) -> Tensor:
    """Say which rows of a batch may see their user's text: their target comes after its cut-off.

    A row without a time, as a recommendation for today, comes after everything that is known; of a
    training row that would be no answer.

    Args:
        batch: RecBole's interaction, with B rows.
        cutoffs: Of the users [U]; a text with NaN is never seen.
        user_field: Of the user's internal id.
        time_field: Of the time when the target was taken.
        is_training: Whether the rows are trained on.

    Returns:
        [B].

    Raises:
        UserError: A training batch without times.
    """
    users = batch[user_field]  # [B]
    if time_field in batch:
        return usable(cutoffs, batch[time_field], users)
    if is_training:
        raise UserError(
            f"user_feature needs the field '{time_field}' (TIME_FIELD) in the training rows, to "
            "leave out the texts that know the target; name it in load_col"
        )
    return ~cutoffs[users].isnan()
