"""Up to when a user's text was written: by row or for all, and which rows may see it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_ext.features.store import FeatureStore
from recbole_ext.models.multimodal.stored_texts import cutoffs_of, usable_in
from recbole_ext.types import UserError
from tests.models.feature_help import user_feature

TOKENS = ["[PAD]", "u4", "u2", "u0", "u77", "u1"]
"""Users by internal id; u2 has no text, u77 is not in the feature."""


def cutoffs(tmp_path, cutoff, column=None, may_leak=False) -> list[float]:
    store = FeatureStore(user_feature(tmp_path, "taste", cutoff, cutoffs=column))
    return cutoffs_of(store.align(TOKENS), store.manifest, may_leak).tolist()


def test_the_manifests_cutoff_is_that_of_all(tmp_path):
    found = cutoffs(tmp_path, 7.0)
    assert np.array_equal(found, [np.nan, 7.0, np.nan, 7.0, np.nan, 7.0], equal_nan=True)


def test_a_cutoff_of_the_row_goes_before(tmp_path):
    found = cutoffs(tmp_path, 7.0, {"u0": 3.0, "u4": 9.0})
    assert np.array_equal(found, [np.nan, 9.0, np.nan, 3.0, np.nan, np.nan], equal_nan=True)


def test_without_any_it_is_refused(tmp_path):
    sentence = "'taste' does not say up to which time.*build it with a.*user_feature_may_leak: True"
    with pytest.raises(UserError, match=sentence):
        cutoffs(tmp_path, None)


def test_who_takes_a_text_that_may_leak_has_it_for_every_row(tmp_path):
    found = cutoffs(tmp_path, None, may_leak=True)
    inf = np.inf
    assert np.array_equal(found, [np.nan, -inf, np.nan, -inf, np.nan, -inf], equal_nan=True)
    batch = {"user": torch.tensor([1, 2, 3]), "time": torch.tensor([-9.0, 6.0, 0.0])}
    for is_training in (True, False):
        seen = usable_in(batch, torch.tensor(found), "user", "time", is_training=is_training)
        assert seen.tolist() == [True, False, True]  # u2 has no text


def test_a_cutoff_holds_though_a_leak_is_allowed(tmp_path, caplog):
    found = cutoffs(tmp_path, 7.0, may_leak=True)
    assert np.array_equal(found, [np.nan, 7.0, np.nan, 7.0, np.nan, 7.0], equal_nan=True)
    assert "user_feature_may_leak does nothing: 'taste' has cut-offs" in caplog.text


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
