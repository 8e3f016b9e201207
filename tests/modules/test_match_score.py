"""The scale of cosines: its bound, and the way back from beyond it."""

from __future__ import annotations

import math

import pytest
import torch

from recbole_ext.models.multimodal.jointrec import ScoreMix
from recbole_ext.modules.match_score import MatchScore


@pytest.mark.parametrize(("log_scale", "wanted"), [(50.0, 100.0), (math.log(7), 7.0), (-50.0, 0)])
def test_the_scale_is_bounded_from_above(log_scale, wanted):
    score, mix = MatchScore(1.0), ScoreMix(4)
    with torch.no_grad():
        score.log_scale.fill_(log_scale)
        mix.log_scale.fill_(log_scale)
        mix.of_user.bias.fill_(-200.0)  # closed: the first scores alone
    assert score(torch.tensor(0.5)).item() == pytest.approx(wanted / 2, abs=1e-4)
    found = mix(torch.full((1, 1), 0.5), torch.zeros(1, 1), torch.zeros(1, 4), torch.zeros(1, 4))
    assert found.item() == pytest.approx(wanted / 2, abs=1e-4)


@pytest.mark.parametrize("log_scale", [math.log(101), 5.5])
def test_a_scale_beyond_the_bound_comes_back_where_less_is_better(log_scale):
    score, mix = MatchScore(1.0), ScoreMix(4)
    with torch.no_grad():
        score.log_scale.fill_(log_scale)
        mix.log_scale.fill_(log_scale)
    one = torch.ones(1, 1)
    both = [*score.parameters(), mix.log_scale]
    optimizer = torch.optim.Adam(both, lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        loss = score(one) + mix(one, one, torch.zeros(1, 4), torch.zeros(1, 4))
        loss.sum().backward()
        optimizer.step()
    for parameter in both:
        assert (parameter < math.log(100)).all()
