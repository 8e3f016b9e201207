"""Which pairs may use a text: exact in every type of time, never a target at the cut-off."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_ext.modules.cutoffs import usable

CUTOFFS = np.array([np.nan, 5.0, -1.0, 881250994.0])
USERS = np.array([0, 1, 1, 1, 2, 2])
TIMES = np.array([9.0, 4.0, 5.0, 5.5, -1.0, 0.0])
WANTED = [False, False, False, True, False, True]


def test_a_target_at_or_before_the_cut_off_is_not_usable():
    found = usable(CUTOFFS, TIMES, USERS)
    assert found.dtype == bool and found.tolist() == WANTED


def test_tensors_are_as_arrays():
    found = usable(*map(torch.from_numpy, (CUTOFFS, TIMES, USERS)))
    assert found.dtype == torch.bool and found.tolist() == WANTED


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.int32])
@pytest.mark.parametrize("is_tensor", [False, True])
def test_rounding_never_makes_a_target_later_than_its_own_cut_off(kind, is_tensor):
    """In float32 times of our day are multiples of 64: half of them are rounded up."""
    seconds = np.arange(881250994 - 200, 881250994 + 200)
    times, users = seconds.astype(kind), np.full(400, 3)
    given = (CUTOFFS, times, users)
    found = np.asarray(usable(*map(torch.from_numpy, given)) if is_tensor else usable(*given))
    assert not found[seconds <= 881250994].any()
    later = 881250994 + (64 if kind is np.float32 else 0)
    assert found[seconds > later].all()
    assert not usable(CUTOFFS, times[:1], np.array([0])).any()  # no text


def test_the_naive_comparison_would_leak():
    """The reason for comparing in float32: the cut-off's own event looks later than it."""
    own = np.array([881250994.0], dtype=np.float32)
    assert (own > CUTOFFS[3:]).all() and not usable(CUTOFFS, own, np.array([3])).any()
