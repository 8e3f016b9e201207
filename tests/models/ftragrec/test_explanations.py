"""FTRagRec names the neighbours behind a list."""

from __future__ import annotations

import pytest

from recbole_ext.types import UserError
from tests.models.ftragrec_help import FIXED, shake


def test_explain_names_the_neighbours(make):
    net, loaders = make(top_k=8, **FIXED)
    net.train()
    found = net.explain(user=4)
    assert net.training
    assert sum(n.weight for n in found) == pytest.approx(1, abs=1e-5)
    assert [n.weight for n in found] == sorted((n.weight for n in found), reverse=True)
    rows = loaders[0]._dataset.inter_feat
    user_token, item_token = (
        loaders[0]._dataset.field2id_token[f] for f in (net.USER_ID, net.ITEM_ID)
    )
    for n in found:
        assert n.user != 4 and n.user == int(rows[net.USER_ID][n.row])
        assert n.target == int(rows[net.POS_ITEM_ID][n.row])
        assert n.prefix == [i for i in rows[net.ITEM_SEQ][n.row].tolist() if i]
        assert n.user_token == user_token[n.user] and n.target_token == item_token[n.target]
        assert n.prefix_tokens == [item_token[i] for i in n.prefix]


@pytest.mark.parametrize(("alpha", "mix"), [(0.0, "log_linear"), (0.4, "vector"), (0.4, "gate")])
def test_explain_says_what_share_the_neighbours_have(make, alpha, mix):
    net, _ = make(top_k=8, **{**FIXED, "alpha": alpha, "mix": mix})
    assert all(n.alpha == pytest.approx(alpha) for n in net.explain(user=4))
    assert net.explain(user=4)
    if mix == "gate":
        shake(net.retrieval.gate)
        assert all(abs(n.alpha - alpha) > 1e-3 for n in net.explain(user=4))


def test_explain_of_a_history_is_that_of_its_user_without_the_policy(make):
    net, loaders = make(top_k=8, **FIXED)
    history = net.keeper.rows.history(4)
    as_user, as_history = net.explain(user=4), net.explain(history=history)
    both = net.explain(user=4, history=history)
    assert [n.row for n in both] == [n.row for n in as_user]
    assert any(n.user == 4 for n in as_history)  # nobody in particular: nothing is left out
    assert net.explain(history=[1] * 50)  # longer than the limit
    with pytest.raises(UserError, match="user 999 has no training history"):
        net.explain(user=999)
    with pytest.raises(UserError, match="give a history"):
        net.explain()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"user": "anna"}, "user takes an internal id, not 'anna'; dataset.token2id"),
        ({"history": ["B001"]}, "history takes internal item ids, 1 to 40"),
        ({"history": [99999]}, "history takes internal item ids, 1 to 40"),
        ({"history": [0]}, "history takes internal item ids"),
        ({"history": []}, "give a history with items"),
        ({}, "no training history"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence(make, asked, sentence):
    net, _ = make()
    with pytest.raises(UserError, match=sentence):
        net.explain(**asked)
