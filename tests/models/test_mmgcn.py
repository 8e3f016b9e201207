"""MMGCN: the contract; loss, scores and gradients against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from contracts import assert_like_in_16_bits

from recbole_ext.types import UserError
from tests.models.general_help import (
    GeneralContract,
    bpr_of,
    build,
    check,
    check_scores,
    features_of,
    weights_of,
    who_took_what,
)

SMALL = {"image_hidden_size": 6, "n_layers": 3, "reg_weight": 0.2}


class TestMMGCN(GeneralContract):
    model = "MMGCN"
    settings = SMALL


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


@pytest.mark.parametrize("modalities", [("text", "image"), ("image",)])
def test_losses_gradients_and_scores_by_their_formula(tiny_data_path, tmp_path, modalities):
    without = {} if "text" in modalities else {"text_feature": None}
    net, batch = build("MMGCN", tiny_data_path, tmp_path, **SMALL, **without)
    assert tuple(net.tables) == modalities
    graph, features = who_took_what(net, batch), features_of(net)
    user, pos, neg = (batch[key].numpy() for key in ("user_id", "item_id", "neg_item_id"))

    def state(w, kind):
        values, present = features[kind]
        name = f"modalities.{kind}"
        if kind == "image":
            values = values @ w[f"{name}.project.weight"].T + w[f"{name}.project.bias"]
        ids = np.concatenate([w["user_embedding.weight"], w["item_embedding.weight"]])
        x = np.concatenate([w[f"{name}.preference"], np.where(present[:, None], values, 0)])
        x = x / np.maximum(np.sqrt((x**2).sum(1, keepdims=True)), 1e-12)
        speaks = np.concatenate([np.ones(net.n_users), present])
        for layer in range(3):
            near = graph * speaks  # those that say something
            h = near @ x @ w[f"{name}.convolve.{layer}.weight"].T
            h = h / np.maximum(near.sum(1), 1)[:, None]
            own = leaky(x @ w[f"{name}.own.{layer}.weight"].T + w[f"{name}.own.{layer}.bias"]) + ids
            both = np.concatenate([leaky(h), own], 1)
            x = leaky(
                both @ w[f"{name}.combine.{layer}.weight"].T + w[f"{name}.combine.{layer}.bias"]
            )
            speaks = np.ones(len(graph))
        return x

    def vectors(w):
        mean = sum(state(w, kind) for kind in modalities) / len(modalities)
        return mean[: net.n_users], mean[net.n_users :]

    def losses(w):
        users, items = vectors(w)
        squares = [
            (w["user_embedding.weight"][user] ** 2 + w["item_embedding.weight"][item] ** 2).mean()
            for item in (pos, neg)
        ]
        preferences = [(w[f"modalities.{kind}.preference"][1:] ** 2).mean() for kind in modalities]
        return {
            "rec": bpr_of(users[user], items[pos], items[neg]),
            "reg": 0.2 * (sum(squares) / 2 + sum(preferences)),
        }

    check(net, batch, losses)
    check_scores(net, *vectors(weights_of(net)))


def test_initial_values_are_the_public_codes(tiny_data_path, tmp_path):
    """Ids are one table of Xavier's normal numbers; what combines is that in the first layer."""
    net, _ = build("MMGCN", tiny_data_path, tmp_path, **{**SMALL, "embedding_size": 32})
    ids = np.concatenate([net.user_embedding.weight.detach(), net.item_embedding.weight.detach()])
    std = np.sqrt(2 / sum(ids.shape))
    assert ids.std() == pytest.approx(std, rel=0.05) and np.abs(ids).max() > np.sqrt(3) * std
    for layer, weight in enumerate(part.weight for part in net.modalities["text"].combine):
        bound = 1 / np.sqrt(weight.shape[1])  # of PyTorch's own
        assert (weight.abs().max() <= bound) == (layer > 0)


def test_a_width_below_one_is_refused(tiny_data_path, tmp_path):
    with pytest.raises(UserError, match="image_hidden_size must be greater than 0, not -2"):
        build("MMGCN", tiny_data_path, tmp_path, image_hidden_size=-2)


def test_an_image_that_is_missing_is_nobodys_content(tiny_data_path, tmp_path):
    """The bias of the map would else be the picture of all items without one."""
    net, _ = build("MMGCN", tiny_data_path, tmp_path, **SMALL)
    before = net.encode()
    lacks = ~net.tables["image"].present
    net.tables["image"].weight[lacks] = 7.0
    for then, now in zip(before, net.encode(), strict=True):
        assert then.equal(now)


def test_amp_agrees(tiny_data_path, tmp_path):
    net, batch = build("MMGCN", tiny_data_path, tmp_path, **SMALL)
    assert_like_in_16_bits(net.float(), batch)
