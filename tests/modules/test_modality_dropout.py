"""Modality dropout: how many go, and that nobody loses all."""

from __future__ import annotations

import pytest
import torch

from recbole_ext.modules.modality_dropout import drop_modalities


def test_a_share_goes_and_nobody_loses_all():
    torch.manual_seed(0)
    present = torch.tensor([[True, True, True], [True, False, False], [False] * 3])
    present = present.repeat(20_000, 1)
    kept = drop_modalities(present, 0.3)
    assert not (kept & ~present).any()
    three, one, none = kept.view(-1, 3, 3).unbind(1)
    assert (one == present[1]).all() and not none.any()
    assert three.any(1).all()
    # of three, that all are drawn is undone: .7 + .3^3 of each stays
    assert three.float().mean().item() == pytest.approx(0.7 + 0.3**3, abs=0.005)


def test_nothing_goes_at_zero():
    present = torch.rand(50, 3) < 0.5
    assert torch.equal(drop_modalities(present, 0.0), present)
