"""NRMSDocVec: the contract under both losses; that it finds what the texts say."""

from __future__ import annotations

import pytest
import torch
from contracts import assert_like_in_16_bits

from recbole_ext.types import UserError
from tests.models.news_contract import NewsContract, made, trained_auc


class TestNRMSDocVec(NewsContract):
    model = "NRMSDocVec"


class TestOfSingleRows(NewsContract):
    model = "NRMSDocVec"
    settings = {**NewsContract.settings, "loss": "bce", "score": "cos"}


def test_it_finds_what_the_texts_say_and_nothing_where_they_say_nothing(news_data):
    assert trained_auc("NRMSDocVec", news_data("text")) > 0.9
    assert trained_auc("NRMSDocVec", news_data("graph")) < 0.65


@pytest.mark.parametrize("loss", ["impression_softmax", "bce"])
def test_in_16_bits(news_data, loss):
    net, train = made("NRMSDocVec", news_data("text"), loss=loss, dropout_prob=0.0)
    assert_like_in_16_bits(net, next(iter(train)))


@torch.no_grad()
def test_clicked_news_without_a_vector_are_passed_over(news_data):
    net, train = made("NRMSDocVec", news_data("text"))
    net.eval()
    bare = train.dataset.token2id("item_id", ["N5", "N6"])
    others = train.dataset.token2id("item_id", ["N8", "N9"])
    rows = [[*others, 0, 0], [others[0], bare[0], others[1], bare[1]], [*bare, 0, 0], [0] * 4]
    history = torch.tensor(rows)
    user = net.user(net.all_news()[history], net.says_something(history))  # [4, D]
    torch.testing.assert_close(user[0], user[1])
    torch.testing.assert_close(user[2], net.user.empty)
    torch.testing.assert_close(user[3], net.user.empty)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"text_feature": None}, "text_feature: name the stored vectors"),
        ({"loss": "impresion_softmax"}, "is none of impression_softmax, bce; did you mean 'impres"),
        ({"imbalance": "focal"}, "imbalance: focal is of loss: bce"),
        ({"loss": "bce", "imbalance": "both"}, "imbalance: 'both' is none of none, pos_weight"),
        ({"HISTORY_FIELD": "read"}, r"loaded without 'read' \(HISTORY_FIELD\).*news_on_"),
        ({"n_heads": 3}, "n_heads"),
        ({"train_neg_sample_args": {"distribution": "uniform"}}, "NRMSDocVec, which draws its neg"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(news_data, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        made("NRMSDocVec", news_data("text"), **settings)


@pytest.mark.parametrize("imbalance", ["none", "pos_weight", "focal", "sampling"])
@pytest.mark.parametrize("score", ["cos", "dot"])
def test_single_rows_find_it_too_whatever_is_done_about_few_clicks(news_data, imbalance, score):
    settings = {"loss": "bce", "imbalance": imbalance, "score": score, "learning_rate": 0.02}
    assert trained_auc("NRMSDocVec", news_data("text"), 120, **settings) > 0.85
