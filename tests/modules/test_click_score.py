"""From a user and news to the logit of a click."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbole_ext.modules.click_score import ClickScore
from recbole_ext.types import UserError


@pytest.mark.parametrize("kind", ["cos", "dot"])
def test_the_score_is_as_written(kind):
    rng = np.random.default_rng(0)
    user, news = rng.normal(size=(3, 4)), rng.normal(size=(3, 2, 4))
    score = ClickScore(kind, 0.04).double()
    found = score(torch.from_numpy(user), torch.from_numpy(news)).detach().numpy()
    for b in range(3):
        for k in range(2):
            product = user[b] @ news[b, k]
            if kind == "cos":
                product *= 10 / (np.linalg.norm(user[b]) * np.linalg.norm(news[b, k]))
            assert found[b, k] == pytest.approx(product + math.log(0.04 / 0.96), rel=1e-6)
    shared = score(torch.from_numpy(user), torch.from_numpy(news[:, 0])).detach().numpy()
    np.testing.assert_allclose(np.diag(shared), found[:, 0], rtol=1e-9)


def test_it_begins_at_the_priors_loss_where_a_bare_cosine_never_comes():
    """At 4 % clicks the constant has .168; a bare cosine has .313 at the least."""
    score = ClickScore("cos", 0.04)
    p = score(torch.eye(1, 4), torch.eye(4)[1:2]).sigmoid().item()  # at right angles
    loss = -(0.04 * math.log(p) + 0.96 * math.log(1 - p))
    assert loss == pytest.approx(0.168, abs=1e-3)
    assert -math.log(1 - 1 / (1 + math.e)) == pytest.approx(0.313, abs=1e-3)


def test_a_loss_that_compares_trains_no_bias():
    assert "bias" not in dict(ClickScore("dot", 0.1, is_bias_trained=False).named_parameters())
    assert "bias" in ClickScore("dot", 0.1, is_bias_trained=False).state_dict()


@pytest.mark.parametrize("prior", [0.0, 1.0])
def test_clicks_alone_or_none_are_refused(prior):
    with pytest.raises(UserError, match="clicks beside non-clicks; see LABEL_FIELD"):
        ClickScore("dot", prior)


def test_a_name_that_is_none():
    with pytest.raises(UserError, match="score: 'cosine' is none of cos, dot"):
        ClickScore("cosine", 0.1)
