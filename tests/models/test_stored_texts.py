"""Up to when a user's text was written: by row or for all, and which rows may see it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_ext.features.store import FeatureStore
from recbole_ext.models.multimodal.stored_texts import cutoffs_of, usable_in
from recbole_ext.types import UserError
from tests.models.feature_help import user_feature


def stored(tmp_path, cutoff, column=None) -> FeatureStore:
    folder = user_feature(tmp_path, "taste", cutoff)
    if column is not None:
        (path,) = (tmp_path / "taste").glob("rows-*.parquet")
        rows = pd.read_parquet(path)
        rows["cutoff"] = [column.get(token, np.nan) for token in rows["token"]]
        rows.to_parquet(path)
    return FeatureStore(folder)


def test_the_manifests_cutoff_is_that_of_all(tmp_path):
    found = cutoffs_of(stored(tmp_path, 7.0))
    assert len(found) == 30 and set(found.values()) == {7.0}


def test_a_cutoff_of_the_row_goes_before(tmp_path):
    found = cutoffs_of(stored(tmp_path, 7.0, {"u0": 3.0, "u4": 9.0}))
    assert (found["u0"], found["u4"]) == (3.0, 9.0) and np.isnan(found["u1"])


def test_without_any_it_is_refused(tmp_path):
    with pytest.raises(
        UserError, match="'taste' .* does not say up to which time.*build it with a"
    ):
        cutoffs_of(stored(tmp_path, None))


def test_the_same_time_is_not_after():
    """At the cut-off the interaction went into the text."""
    cutoffs = torch.tensor([torch.nan, 5.0, 8.0, torch.nan])
    batch = {"user": torch.tensor([1, 1, 1, 2, 3]), "time": torch.tensor([4.0, 5.0, 6.0, 6.0, 9.0])}
    expected = [False, False, True, False, False]
    for is_training in (True, False):
        found = usable_in(batch, cutoffs, "user", "time", is_training=is_training)
        assert found.tolist() == expected


def test_without_a_time_it_is_today_unless_it_trains():
    cutoffs = torch.tensor([torch.nan, 5.0, torch.nan])
    batch = {"user": torch.tensor([1, 2])}
    found = usable_in(batch, cutoffs, "user", "time", is_training=False)
    assert found.tolist() == [True, False]
    with pytest.raises(UserError, match="user_feature needs the field 'time' .TIME_FIELD."):
        usable_in(batch, cutoffs, "user", "time", is_training=True)
