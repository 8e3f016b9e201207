"""BM3: the contract; loss, scores and gradients against dense matrices; no negatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recbole_ext.types import UserError
from tests.models.general_help import (
    GeneralContract,
    build,
    check,
    check_scores,
    features_of,
    normalised,
    weights_of,
    who_took_what,
)

SETTINGS = {"reg_weight": 0.4, "contrastive_weight": 1.5, "n_layers": 2}


class TestBM3(GeneralContract):
    model = "BM3"


def apart(a, b, mask=None):
    cos = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return 1 - (cos if mask is None else cos[mask]).mean()


def test_losses_gradients_and_scores_by_their_formula(tiny_data_path, tmp_path, monkeypatch):
    kept = torch.tensor([1.0, 0, 1, 1, 1, 0, 1, 1], dtype=torch.float64)  # of 8, the same always
    seen = []
    monkeypatch.setattr(F, "dropout", lambda x, p, on: seen.append((p, on)) or x * kept / (1 - p))
    net, batch = build("BM3", tiny_data_path, tmp_path, **SETTINGS, target_dropout_prob=0.5)
    adjacency, features = normalised(who_took_what(net, batch)), features_of(net)
    user, item = batch["user_id"].numpy(), batch["item_id"].numpy()
    assert any(not present[item].all() for _, present in features.values())

    def propagated(w):
        x = np.concatenate([w["user_embedding.weight"], w["item_embedding.weight"]])
        h = (x + adjacency @ x + adjacency @ (adjacency @ x)) / 3
        return h[: net.n_users], h[net.n_users :] + w["item_embedding.weight"]

    def mapped(w, kind):
        values = w[f"tables.{kind}.weight"]  # they are parameters
        return values[item] @ w[f"project.{kind}.weight"].T + w[f"project.{kind}.bias"]

    def q(w, x):
        return x @ w["predictor.weight"].T + w["predictor.bias"]

    def targets(w):
        users, items = propagated(w)
        return {
            "user": users[user] * kept.numpy() / 0.5,
            "item": items[item] * kept.numpy() / 0.5,
            **{kind: mapped(w, kind) * kept.numpy() / 0.5 for kind in features},
        }

    still = targets(weights_of(net))  # no gradient flows through them

    def losses(w):
        users, items = propagated(w)
        norms = sum(np.sqrt((x[1:] ** 2).sum()) for x in (users, items))
        found = {
            "rec": apart(q(w, users[user]), still["item"])
            + apart(q(w, items[item]), still["user"]),
            "reg": 0.4 * norms / (net.n_items - 1),
        }
        for kind, (_, present) in features.items():
            has_it, view = present[item], q(w, mapped(w, kind))
            pull = apart(view, still["item"], has_it) + apart(view, still[kind], has_it)
            found[kind] = 1.5 * pull
        return found

    check(net, batch, losses)
    assert set(seen) == {(0.5, True)}
    w = weights_of(net)
    check_scores(net, *(q(w, x) for x in propagated(w)))


def test_a_weight_below_zero_is_refused(tiny_data_path, tmp_path):
    with pytest.raises(UserError, match="contrastive_weight: -1.0 must be at least 0"):
        build("BM3", tiny_data_path, tmp_path, contrastive_weight=-1.0)


def test_no_negatives_are_drawn_and_asking_for_them_is_refused(tiny_data_path, tmp_path):
    net, batch = build("BM3", tiny_data_path, tmp_path)
    assert "neg_item_id" not in batch and "label" not in batch
    with pytest.raises(UserError, match="train_neg_sample_args: BM3 draws no negatives; leave"):
        build(
            "BM3",
            tiny_data_path,
            tmp_path,
            train_neg_sample_args={"distribution": "uniform", "sample_num": 1},
        )
