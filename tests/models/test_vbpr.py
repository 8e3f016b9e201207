"""VBPR: the contract; both forms against their formula, with items that lack a feature."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.general_help import (
    GeneralContract,
    bpr_of,
    build,
    check,
    check_scores,
    features_of,
    weights_of,
)


class TestVBPR(GeneralContract):
    model = "VBPR"


def test_initial_values_are_the_public_codes(tiny_data_path, tmp_path):
    """Xavier's: tables by uniform numbers, the map by normal ones, and no bias."""
    net, _ = build("VBPR", tiny_data_path, tmp_path)
    for table in (net.user_embedding.weight, net.item_embedding.weight):
        bound = np.sqrt(6 / sum(table.shape))
        assert 0.95 * bound < table.abs().max() <= bound
    bound = np.sqrt(6 / sum(net.project.weight.shape))  # that normal numbers do not keep to
    assert net.project.weight.abs().max() > bound and not net.project.bias.any()


@pytest.mark.parametrize("use_bias", [False, True])
def test_losses_gradients_and_scores_by_their_formula(tiny_data_path, tmp_path, use_bias):
    net, batch = build("VBPR", tiny_data_path, tmp_path, use_bias=use_bias, reg_weight=0.3)
    (text, has_text), (image, has_image) = features_of(net).values()
    f = np.concatenate([text, image], 1)
    assert not f[~(has_text | has_image)].any() and (has_text != has_image).any()
    user, pos, neg = (batch[key].numpy() for key in ("user_id", "item_id", "neg_item_id"))
    lacks_all = np.flatnonzero(~(has_text | has_image))
    assert set(lacks_all[lacks_all > 0]) & {*pos, *neg}

    def items(w):
        content = f @ w["project.weight"].T + (0 if use_bias else w["project.bias"])
        content[lacks_all] = 0
        return np.concatenate([w["item_embedding.weight"], content], 1)

    def biases(w):
        return w["item_bias"] + f @ w["feature_bias"] if use_bias else np.zeros(net.n_items)

    def losses(w):
        u, i, b = w["user_embedding.weight"][user], items(w), biases(w)[:, None]
        with_bias = np.concatenate([u, np.ones((len(u), 1))], 1), np.concatenate([i, b], 1)
        norms = sum(np.sqrt((x**2).sum()) for x in (u, i[pos], i[neg]))
        return {
            "rec": bpr_of(with_bias[0], with_bias[1][pos], with_bias[1][neg]),
            "reg": 0.3 * norms / len(u),
        }

    if use_bias:
        for bias in (net.item_bias, net.feature_bias):
            bias.data.normal_()
    check(net, batch, losses)
    w = weights_of(net)
    users = np.concatenate([w["user_embedding.weight"], np.ones((net.n_users, 1))], 1)
    check_scores(net, users, np.concatenate([items(w), biases(w)[:, None]], 1))
